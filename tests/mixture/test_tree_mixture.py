"""The tree mixture against its definition in plain Python; sums, causality and noise."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pytest
import torch

from fairway.mixture import tree_mixture
from fairway.mixture.config import Ngram
from fairway.mixture.context_table import MAX_COUNT, count_of
from fairway.mixture.features import Features, NextTokenInputs, feature_type
from fairway.mixture.node import CONTEXTS, LENGTH_CLASSES, MAX_LOG_ODDS, MAX_MATCH, MIXERS, WORD_CONTEXTS
from fairway.mixture.tree import middle
from fairway.mixture.tree_mixture import TreeMixture
from fairway.score.features import path_log_odds
from tests.mixture.plain_tree import PlainTree
from tests.plain_settings import NGRAM

SETTINGS = dataclasses.replace(NGRAM, max_order=6, entropy_bins=5)
EXPERTS = CONTEXTS + WORD_CONTEXTS + SETTINGS.max_order - 1
BOS, VOCABULARY = 1, 21  # no power of two: some paths have four decisions, some five
RANKS = np.random.default_rng(0).permutation(VOCABULARY).astype(np.uint16)
STARTS = np.isin(np.arange(VOCABULARY), [BOS, 4, 9, 16])


class Stream(NamedTuple):
    """Of N targets in a row, as a decoder would hear of them."""

    tokens: np.ndarray
    neural_NV: np.ndarray
    cached_NV: np.ndarray
    nearest: np.ndarray  # float32
    ranks: np.ndarray

    def entropy(self) -> np.ndarray:
        return -(self.neural_NV * np.log(np.maximum(self.neural_NV, 1e-30))).sum(1).astype(np.float32)

    def features(self) -> Features:
        targets, leaves = torch.from_numpy(self.tokens.astype(np.int64)), torch.from_numpy(np.argsort(self.ranks))
        both = [path_log_odds(torch.from_numpy(p), targets, leaves).numpy() for p in (self.neural_NV, self.cached_NV)]
        features = np.zeros(len(self.tokens), feature_type("tree", len(self.ranks)))
        features["token"], features["entropy"], features["nearest"] = self.tokens, self.entropy(), self.nearest
        features["paths"] = np.stack(both, axis=-1)
        return features

    def inputs(self, i: int) -> NextTokenInputs:
        return NextTokenInputs(self.neural_NV[i], self.cached_NV[i], float(self.entropy()[i]), float(self.nearest[i]))


def with_(**changes) -> Ngram:
    return dataclasses.replace(SETTINGS, **changes)


def fresh(ranks: np.ndarray = RANKS, starts: np.ndarray = STARTS, **changes) -> TreeMixture:
    return TreeMixture(with_(**changes), ranks, starts, BOS)


def distributions(count: int, vocabulary: int, seed: int) -> np.ndarray:
    """(N, V), from nearly flat to nearly certain; all above the rounding of running sums."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, vocabulary)) * random.choice([0.2, 1.0, 3.0, 12.0], size=(count, 1))
    weights = np.exp(logits - logits.max(1, keepdims=True))
    return (1 - 1e-6) * weights / weights.sum(1, keepdims=True) + 1e-6 / vocabulary


def repetitive_text(count: int, vocabulary: int = VOCABULARY, seed: int = 1) -> np.ndarray:
    """Phrases that come again, the longest longer than a match can be, noise between them, and tokens over and over."""
    random = np.random.default_rng(seed)
    phrases = [random.integers(0, vocabulary, length) for length in (4, 9, 20, 50)]
    pieces = []
    while sum(map(len, pieces)) < count:
        pieces += [phrases[random.integers(4)], random.integers(0, vocabulary, 3), np.full(random.integers(20), 0)]
    return np.concatenate((*pieces, np.full(20, 0)))[-count:]


def stream_of(text: np.ndarray, ranks: np.ndarray = RANKS, seed: int = 2) -> Stream:
    """A network that knows nothing; a cache that is sometimes right; cosines of all kinds."""
    V, random = len(ranks), np.random.default_rng(seed)
    neural, certain = distributions(len(text), V, seed), np.eye(V)[text]
    trust = random.choice([0.0, 0.3, 0.9], size=(len(text), 1))
    cached = 0.7 * neural + 0.3 * (trust * certain + (1 - trust) * distributions(len(text), V, seed + 1))
    nearest = np.where(random.random(len(text)) < 0.8, 1 - random.random(len(text)) ** 6, random.uniform(-1, 1, len(text)))
    return Stream(text, neural, cached, nearest.astype(np.float32), ranks)


def flat(text: np.ndarray, vocabulary: int) -> Stream:
    """A network that finds all tokens alike, and no cache."""
    neural = np.full((len(text), vocabulary), 1 / vocabulary)
    return Stream(text, neural, neural, np.zeros(len(text), np.float32), np.arange(vocabulary, dtype=np.uint16))


def bits(stream: Stream, starts: np.ndarray | None = None, **changes) -> np.ndarray:
    """Of each token. Without `starts` the text is one long word that never comes again."""
    starts = np.zeros(len(stream.ranks), bool) if starts is None else starts
    nats, _ = fresh(stream.ranks, starts, **changes).score(stream.features())
    return nats.astype(np.float64) / math.log(2)


STREAM = stream_of(repetitive_text(600))


@pytest.mark.parametrize(
    "changes",
    [{}, {"max_order": 1}, {"max_order": 9, "table_entries": 1024}, {"learning_rate": 0.3, "entropy_bins": 1}],
    ids=str,
)
def test_every_probability_equals_the_oracle(changes):
    ours, oracle = fresh(**changes), PlainTree(with_(**changes), RANKS, STARTS, BOS)
    known = STREAM.features()
    for i, token in enumerate(STREAM.tokens.tolist()):
        if i % 5 == 0:
            inputs = STREAM.inputs(i)
            ours.prepare(inputs)
            expected = oracle.distribution(inputs.neural.tolist(), inputs.cached.tolist(), inputs.nearest, inputs.entropy)
            np.testing.assert_allclose(ours.distribution(), expected, rtol=1e-7, atol=1e-11)
        nats, orders = ours.score(known[i : i + 1])
        given = known[i]["paths"].tolist(), float(known[i]["nearest"]), float(known[i]["entropy"])
        expected_nats, matched = oracle.score(token, *given)
        assert nats[0] == pytest.approx(expected_nats, abs=1e-6, rel=1e-6) and orders[0] == matched
    assert ours.table.used[0] == len(oracle.successors)


def test_the_oracle_was_asked_about_everything():
    """In its stream all experts, orders, lengths of a match, classes of cosines and full counts occur."""
    ours = fresh()
    _, orders = ours.score(STREAM.features())
    state = ours.state
    assert set(orders) == set(range(1, SETTINGS.max_order + 1))
    assert state.match_L2[1, 1] > 20 and state.match_L2[MAX_MATCH - 1, 1] > 20
    assert max(count_of(entry, 0) for entry in ours.table.entries[:, 1]) == MAX_COUNT
    learned = state.weight_RI != fresh().state.weight_RI
    assert learned.any(0).all() and learned.shape[1] == EXPERTS
    tables = np.split(learned.any(1), state.first_M[1:])
    assert tables[3].sum() == VOCABULARY - 1
    by_length_and_cosine = tables[1].reshape(LENGTH_CLASSES, -1)
    assert by_length_and_cosine.any(1).all() and by_length_and_cosine.any(0).all()
    assert (state.final_RM != 1 / MIXERS).all()


SAYS = [*(("weight_RI", expert) for expert in range(EXPERTS)), *(("final_RM", mixer) for mixer in range(MIXERS))]


@pytest.mark.parametrize("weights, column", SAYS)
def test_every_expert_and_every_mixer_has_a_say(weights, column):
    one, other = fresh(), fresh()
    getattr(other.state, weights)[:, column] += 0.1
    known = STREAM.features()
    assert np.abs(one.score(known)[0] - other.score(known)[0]).max() > 1e-3


@pytest.mark.parametrize("vocabulary", [2, 3, 21, 64])
def test_probabilities_sum_to_one_and_are_those_of_the_score(vocabulary):
    text, ranks = repetitive_text(500, vocabulary), np.random.default_rng(5).permutation(vocabulary).astype(np.uint16)
    stream = stream_of(text, ranks)
    ours, known, at = fresh(ranks, text[:vocabulary] % 3 == 0), stream.features(), 0
    for place in np.sort(np.random.default_rng(6).choice(500, 80, replace=False)):
        ours.score(known[at:place])
        ours.prepare(stream.inputs(place))
        probabilities = ours.distribution()
        assert probabilities.dtype == np.float64 and probabilities.shape == (vocabulary,) and probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
        nats, _ = ours.score(known[place : place + 1])
        assert nats[0] == pytest.approx(-math.log(probabilities[text[place]]), rel=1e-6, abs=1e-5)
        at = place + 1


def test_a_walk_down_the_tree_gives_the_probability_of_every_token():
    ours = fresh()
    ours.score(STREAM.features()[0:400])
    ours.prepare(STREAM.inputs(400))
    probabilities = ours.distribution()
    for token, rank in enumerate(RANKS):
        lo, hi, level, product = 0, VOCABULARY, 0, 1.0
        while hi - lo > 1:
            right, half = ours.right(lo, hi, level), middle(lo, hi)
            product *= right if rank >= half else 1 - right
            lo, hi, level = (half, hi, level + 1) if rank >= half else (lo, half, level + 1)
        assert product == pytest.approx(probabilities[token], rel=1e-12)


def test_a_decoder_that_looks_around_scores_as_all_at_once():
    """It learns by `observe`, after having asked about nodes that are not on the token's path."""
    curious, nats = fresh(), fresh().score(STREAM.features())[0]
    random = np.random.default_rng(7)
    for i, token in enumerate(STREAM.tokens.tolist()):
        curious.prepare(STREAM.inputs(i))
        first = curious.distribution()
        curious.right(0, VOCABULARY, 0)
        curious.right(*((0, 10) if random.random() < 0.5 else (10, 21)), 1)
        assert (curious.distribution() == first).all()
        assert nats[i] == pytest.approx(-math.log(first[token]), rel=1e-5, abs=1e-5)
        curious.observe(token)


def test_nodes_asked_in_any_order_have_the_same_bits():
    """And the token that follows is learned alike, whichever nodes were asked before it."""
    stream, random = stream_of(repetitive_text(60)), np.random.default_rng(3)
    one, other, silent = fresh(), fresh(), fresh()
    nodes = [(0, VOCABULARY, 0)]
    for lo, hi, level in nodes:
        nodes += [(a, b, level + 1) for a, b in ((lo, middle(lo, hi)), (middle(lo, hi), hi)) if b - a > 1]
    for i, token in enumerate(stream.tokens.tolist()):
        for mixture in (one, other, silent):
            mixture.prepare(stream.inputs(i))
        asked = {node: one.right(*node) for node in nodes}
        assert all(other.right(*nodes[k]) == asked[nodes[k]] for k in random.permutation(len(nodes)))
        for mixture in (one, other, silent):
            mixture.observe(token)
        arrays = [mixture.state.weight_RI.tobytes() + mixture.state.map_CKK.tobytes() for mixture in (one, other, silent)]
        assert len(set(arrays)) == 1


def test_one_token_at_a_time_scores_as_all_at_once(monkeypatch):
    """Exactly, over tables and a text that grow; with questions in between; and in slabs."""
    stream = stream_of(np.concatenate((np.random.default_rng(14).integers(0, VOCABULARY, 2000), repetitive_text(1000))))
    known = stream.features()
    nats, orders = fresh().score(known)
    single = fresh()
    for i in range(len(nats)):
        if i % 50 == 0:
            single.prepare(stream.inputs((i + 7) % 3000))
            single.distribution()
        one, order = single.score(known[i : i + 1])
        assert one.tobytes() == nats[i : i + 1].tobytes() and order[0] == orders[i]
    assert len(single.text) == 4096 and len(single.table.entries) > 1 << 14
    assert nats.dtype == np.float32 and orders.dtype == np.uint8
    monkeypatch.setattr(tree_mixture, "BLOCK", 700)
    assert fresh().score(known)[0].tobytes() == nats.tobytes()


def test_a_score_depends_on_nothing_after_it():
    """Whether a token changes or what the network says."""
    text = repetitive_text(300)
    other = text.copy()
    other[200] = (text[200] + 1) % VOCABULARY
    known, elsewhere = stream_of(text).features(), stream_of(text, seed=9).features()
    changed_token = stream_of(text)._replace(tokens=other).features()
    changed_network = np.concatenate((known[:200], elsewhere[200:]))
    nats = fresh().score(known)[0]
    for features in (changed_token, changed_network):
        differs = fresh().score(features)[0] != nats
        assert not differs[:200].any() and differs[200] and differs[201:].any()


@pytest.mark.parametrize(
    "change", [{"max_order": 5}, {"learning_rate": 0.021}, {"entropy_bins": 6}, {"table_entries": 1024}], ids=str
)
def test_every_setting_changes_the_scores(change):
    known = STREAM.features()
    assert np.abs(fresh().score(known)[0] - fresh(**change).score(known)[0]).max() > 1e-4


def test_a_word_and_the_same_with_one_more_token_are_no_context_of_each_other():
    """Fingerprints of words and of contexts are made of the same numbers."""
    starts, words = (
        np.arange(VOCABULARY) == 4,
        [(4, 2, 1), (4, 2), (4, 5, 1), (4, 5), (4, 1), (4,), (4, 2, 0), (4, 2, 2), (4, 2)],
    )
    text = np.array([token for word in words for token in word])
    ours, oracle = fresh(starts=starts, max_order=1), PlainTree(with_(max_order=1), RANKS, starts, BOS)
    ours.score(stream_of(text).features())
    for token in text.tolist():
        oracle.score(token, [(0.0, 0.0)] * 5, 0.0, 1.0)
    assert ours.table.used[0] == len(oracle.successors)


def test_noise_costs_at_least_its_entropy():
    for vocabulary in (21, 64):
        text = np.random.default_rng(3).integers(0, vocabulary, 20_000)
        cost = bits(flat(text, vocabulary), np.arange(vocabulary) % 5 == 0).mean()
        assert math.log2(vocabulary) - 0.001 <= cost < math.log2(vocabulary) + 0.1


def test_a_network_that_knows_the_source_loses_little():
    random = np.random.default_rng(4)
    neural = distributions(20_000, VOCABULARY, 4)
    text = (neural.cumsum(1) < random.random((20_000, 1))).sum(1).clip(max=VOCABULARY - 1)
    stream = Stream(text, neural, neural, np.zeros(20_000, np.float32), RANKS)
    alone = -np.log2(neural[np.arange(20_000), text]).mean()
    assert bits(stream, STARTS, learning_rate=0.004).mean() < alone + 0.03


def test_no_decision_costs_more_than_the_coder_can_count():
    """A network that is sure and wrong, after it has been trusted for long."""
    neural = np.full((3000, VOCABULARY), 1e-12)
    neural[:, 5] = 1 - 1e-12 * (VOCABULARY - 1)
    text = np.full(3000, 5)
    text[-1] = 6
    cost = bits(Stream(text, neural, neural, np.zeros(3000, np.float32), RANKS), learning_rate=0.5) * math.log(2)
    assert cost[100:-1].max() < 1e-5 and MAX_LOG_ODDS / 2 < cost[-1] < 5 * (MAX_LOG_ODDS + 1e-6)
