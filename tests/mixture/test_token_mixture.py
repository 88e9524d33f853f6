"""Every mixture with every estimator against dictionaries; sums over the vocabulary; noise; causality; one by one, at once."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.mixture.config import Ngram
from fairway.mixture.features import Features
from fairway.mixture.hashed_counts import HashedCounts
from fairway.mixture.match import Match
from fairway.mixture.token_mixture import NgramMixture
from tests.mixture.dictionary import DictionaryMixture, DictionaryTilt
from tests.plain_settings import NGRAM

SETTINGS = dataclasses.replace(
    NGRAM,
    mixture="linear",
    estimator="interpolated",
    max_order=5,
    learning_rate=0.05,
    entropy_bins=3,
    neural_weight=0.6,
)
VOCABULARY = 6
MIXTURES, VALID = ["linear", "fixed", "entropy"], ["interpolated", "kneser_ney", "add_one"]
COUNTING = list(itertools.product(MIXTURES, VALID))
texts = st.lists(st.integers(0, VOCABULARY - 1) | st.sampled_from([2, 3]), min_size=1, max_size=60)


def with_(**changes) -> Ngram:
    return dataclasses.replace(SETTINGS, **changes)


def random_text(count: int, vocabulary: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


def repetitive_text(count: int, vocabulary: int, seed: int) -> np.ndarray:
    """Phrases that come again, and noise between them."""
    random = np.random.default_rng(seed)
    phrases = random.integers(0, vocabulary, (4, 11))
    pieces = [phrases[random.integers(4)] if i % 3 else random.integers(0, vocabulary, 5) for i in range(count // 5)]
    return np.concatenate(pieces)[:count]


def network(text: np.ndarray, vocabulary: int, seed: int = 0) -> np.ndarray:
    """Distributions (N, V) that know nothing about the text, sharp ones and flat ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(len(text), vocabulary)) * random.choice([0.2, 1.0, 3.0], size=(len(text), 1))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def told(**fields) -> Features:
    """What the mixtures here do not look at is zero."""
    return Features(**dict.fromkeys(Features._fields, np.zeros(len(fields["tokens"]), np.uint8)) | fields)


def evidence(text: np.ndarray, neural: np.ndarray) -> Features:
    """What a mixture is told of a text that the network gives these distributions for."""
    places = np.arange(len(text))
    hints, hint_orders = Match(neural.shape[1], 1 << 20).scan(text)
    nats, hint_nats = -np.log(neural[places, text]), -np.log(neural[places, hints])
    entropy = -(neural * np.log(neural)).sum(1)
    return told(tokens=text, nats=nats, entropy=entropy, hints=hints, hint_nats=hint_nats, hint_orders=hint_orders)


def uniform(text: np.ndarray, vocabulary: int) -> Features:
    """The same of a network that finds all tokens alike; the hints are left out."""
    nats = np.full(len(text), math.log(vocabulary))
    return told(tokens=text, nats=nats, entropy=nats)


def part(whole: Features, start: int, stop: int) -> Features:
    return Features(*(array[start:stop] for array in whole))


@settings(max_examples=60)
@given(
    texts,
    st.integers(1, 5),
    st.sampled_from(MIXTURES),
    st.sampled_from([*VALID, "hashed_ratio"]),
    st.sampled_from([0.02, 2.0]),
    st.sampled_from([1, 7]),
)
def test_every_combination_equals_the_oracle(text, max_order, mixture, estimator, learning_rate, update_tokens):
    config = with_(
        max_order=max_order, mixture=mixture, estimator=estimator, learning_rate=learning_rate, update_tokens=update_tokens
    )
    ours, oracle = NgramMixture(config, VOCABULARY), DictionaryMixture(config, VOCABULARY)
    neural = network(np.array(text), VOCABULARY)
    known = evidence(np.array(text), neural)
    for i, token in enumerate(text):
        expected = oracle.distribution(neural[i], known.entropy[i])
        np.testing.assert_allclose(ours.distribution(neural[i], known.entropy[i]), expected, rtol=1e-9)
        nats, orders = ours.score(part(known, i, i + 1))
        expected_nats, matched = oracle.score(token, neural[i, token], known.entropy[i])
        assert nats[0] == pytest.approx(expected_nats, abs=1e-6, rel=1e-6) and orders[0] == matched


@settings(max_examples=30)
@given(texts, st.sampled_from([0.0, 0.05, 1.0]), st.sampled_from([0.0, 0.5, 3.0]))
def test_the_tilt_equals_the_oracle(text, learning_rate, tilt):
    config = with_(mixture="tilt", learning_rate=learning_rate, tilt=tilt)
    ours, oracle = NgramMixture(config, VOCABULARY), DictionaryTilt(config)
    neural = network(np.array(text), VOCABULARY)
    known = evidence(np.array(text), neural)
    for i, token in enumerate(text):
        hint, order = int(known.hints[i]), int(known.hint_orders[i])
        expected = oracle.distribution(neural[i].tolist(), hint, order)
        np.testing.assert_allclose(ours.distribution(neural[i], known.entropy[i], hint, order), expected, rtol=1e-5)
        nats, orders = ours.score(part(known, i, i + 1))
        assert nats[0] == pytest.approx(-math.log(expected[token]), abs=1e-5)
        assert orders[0] == order + (order > 0)
        oracle.learn(token, neural[i].tolist(), hint, order)


@pytest.mark.parametrize("mixture, estimator", [*COUNTING, ("tilt", "interpolated")])
@pytest.mark.parametrize("changes", [{}, {"table_entries": 1024, "update_tokens": 50}])
def test_every_valid_mixture_is_a_distribution_and_scores_from_it(mixture, estimator, changes):
    """With room for all n-grams and without, counting at once and late."""
    text = repetitive_text(1500, 32, 1)
    neural = network(text, 32)
    known = evidence(text, neural)
    ours = NgramMixture(with_(mixture=mixture, estimator=estimator, **changes), 32)
    at = 0
    for place in np.sort(np.random.default_rng(2).choice(1500, 60, replace=False)):
        ours.score(part(known, at, place))
        probabilities = ours.distribution(neural[place], known.entropy[place], known.hints[place], known.hint_orders[place])
        assert probabilities.sum() == pytest.approx(1, abs=1e-6) and probabilities.min() > 0
        nats, _ = ours.score(part(known, place, place + 1))
        assert math.exp(-nats[0]) == pytest.approx(probabilities[text[place]], rel=1e-6)
        at = place + 1


@pytest.mark.parametrize("mixture", MIXTURES)
def test_hashed_ratios_sum_to_more_than_one(mixture):
    ours, text = hashed(with_(mixture=mixture), 64, 1 << 10), random_text(20_000, 64, 3)
    ours.score(uniform(text, 64))
    assert ours.distribution(np.full(64, 1 / 64), math.log(64)).sum() > 2


def hashed(config: Ngram, vocabulary: int, buckets: int) -> NgramMixture:
    """With fewer buckets than published, which fill as soon as the published ones do in a long text."""
    ours = NgramMixture(dataclasses.replace(config, estimator="hashed_ratio"), vocabulary)
    ours.kind.counts = HashedCounts(config, vocabulary, buckets)
    return ours


@pytest.mark.parametrize("mixture, estimator", COUNTING)
@pytest.mark.parametrize("vocabulary, count", [(64, 30_000), (1024, 200_000)])
def test_noise_costs_at_least_its_entropy(mixture, estimator, vocabulary, count):
    ours = NgramMixture(with_(mixture=mixture, estimator=estimator, table_entries=1 << 24), vocabulary)
    nats = ours.score(uniform(random_text(count, vocabulary, 4), vocabulary))[0]
    assert nats.mean(dtype=np.float64) / math.log(2) >= math.log2(vocabulary) - 0.001


@pytest.mark.parametrize("vocabulary, count, buckets", [(64, 30_000, 1 << 12), (1024, 200_000, 1 << 16)])
@pytest.mark.parametrize("mixture", ["linear", "fixed"])
def test_hashed_ratios_seem_to_predict_noise(mixture, vocabulary, count, buckets):
    nats = hashed(with_(mixture=mixture), vocabulary, buckets).score(uniform(random_text(count, vocabulary, 4), vocabulary))[0]
    assert nats.mean(dtype=np.float64) / math.log(2) < math.log2(vocabulary) - 0.5


def test_a_tilt_towards_noise_costs_at_least_its_entropy():
    text = random_text(30_000, 64, 5)
    nats = NgramMixture(with_(mixture="tilt"), 64).score(evidence(text, np.full((len(text), 64), 1 / 64)))[0]
    assert nats.mean(dtype=np.float64) / math.log(2) >= 6 - 0.001


ALL = [*COUNTING, ("linear", "hashed_ratio"), ("tilt", "interpolated")]


@pytest.mark.parametrize("mixture, estimator", ALL)
def test_a_score_depends_on_nothing_after_it(mixture, estimator):
    text = repetitive_text(300, 8, 6)
    other = text.copy()
    other[200] = (text[200] + 1) % 8
    neural = network(text, 8)
    config = with_(mixture=mixture, estimator=estimator)
    one, two = (NgramMixture(config, 8).score(evidence(tokens, neural))[0] for tokens in (text, other))
    assert one[:200].tobytes() == two[:200].tobytes()
    assert one[200] != two[200] and (one[201:] != two[201:]).any()


@pytest.mark.parametrize("mixture, estimator", ALL)
@pytest.mark.parametrize("update_tokens", [1, 40])
def test_one_token_at_a_time_scores_as_all_at_once(mixture, estimator, update_tokens):
    """Exactly, over tables that grow; distributions asked for in between change nothing."""
    text = repetitive_text(3000, 32, 7)
    known = evidence(text, network(text, 32))
    config = with_(mixture=mixture, estimator=estimator, update_tokens=update_tokens)
    nats, orders = NgramMixture(config, 32).score(known)
    single = NgramMixture(config, 32)
    for i in range(len(text)):
        if i % 100 == 0:
            single.distribution(np.full(32, 1 / 32), 1.0, 3, 2)
        one, order = single.score(part(known, i, i + 1))
        assert one.tobytes() == nats[i : i + 1].tobytes() and order[0] == orders[i]
    assert nats.dtype == np.float32 and orders.dtype == np.uint8


TILT, FIXED = {"mixture": "tilt"}, {"mixture": "fixed"}


@pytest.mark.parametrize(
    "base, change",
    [
        *[({}, {"mixture": mixture}) for mixture in ("fixed", "entropy", "tilt")],
        *[({}, {"estimator": estimator}) for estimator in ("kneser_ney", "add_one", "hashed_ratio")],
        *[({}, {"discounts": discounts}) for discounts in ([0.4, 0.9, 1.3], [0.5, 0.8, 1.3], [0.5, 0.9, 1.2])],
        *[({}, {"max_order": 4}), ({}, {"table_entries": 1024}), ({}, {"update_tokens": 2})],
        *[({}, {"learning_rate": 0.06}), ({}, {"entropy_bins": 4}), ({}, {"neural_weight": 0.7})],
        *[(FIXED, {"neural_weight": 0.7}), (TILT, {"tilt": 0.9}), (TILT, {"learning_rate": 0.0})],
    ],
    ids=str,
)
def test_every_setting_changes_the_scores(base, change):
    text = repetitive_text(1000, 32, 8)
    known = evidence(text, network(text, 32))
    one, two = (NgramMixture(with_(**settings), 32).score(known)[0] for settings in (base, base | change))
    assert one.tobytes() != two.tobytes()


def test_a_text_that_repeats_is_learned():
    text = np.tile(random_text(300, 64, 9), 4)
    for estimator in ("interpolated", "kneser_ney"):
        nats = NgramMixture(with_(estimator=estimator), 64).score(uniform(text, 64))[0]
        assert nats[:300].mean() > math.log(64) - 0.1 and nats[900:].mean() < 1.0


def test_no_expert_is_ever_lost():
    """A network that is never right keeps a weight of about a millionth, and comes back when it is needed."""
    ours = NgramMixture(with_(learning_rate=5.0, entropy_bins=1), 4)
    ours.score(told(tokens=np.zeros(2000, np.uint16), nats=np.full(2000, 20.0)))
    assert 0 < ours.kind.weights.weights[SETTINGS.max_order, 0, 0] < 1e-5
    assert ours.score(told(tokens=np.arange(200) % 4, nats=np.full(200, 1e-3)))[0][-20:].mean() < 0.7
