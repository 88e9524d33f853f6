"""Every mixture with every estimator against dictionaries; sums over the vocabulary; noise; causality; one by one, at once."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.mixture.config import Ngram
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.hashed_counts import HashedCounts
from fairway.mixture.match import MatchModel
from fairway.mixture.token_mixture import TokenMixture
from tests.mixture.dictionary import DictionaryMatch, DictionaryMixture, DictionaryTilt
from tests.plain_settings import LINEAR as SETTINGS

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


def features_of(text: np.ndarray, **columns: np.ndarray) -> Features:
    """What a token mixture reads, in float64; what is not given is zero."""
    fields = [("token", "u2"), *((name, "f8") for name in ("nats", "entropy", "match_nats"))]
    features = np.zeros(len(text), fields)
    for name, values in {"token": text, **columns}.items():
        features[name] = values
    return features


def recorded(text: np.ndarray, neural: np.ndarray) -> Features:
    """The features of a text that the network gives these distributions for."""
    places, matches = np.arange(len(text)), MatchModel(neural.shape[1]).scan(text)[0]
    nats, match_nats = -np.log(neural[places, text]), -np.log(neural[places, matches])
    return features_of(text, nats=nats, entropy=-(neural * np.log(neural)).sum(1), match_nats=match_nats)


def uniform(text: np.ndarray, vocabulary: int) -> Features:
    """The features of a network that finds all tokens alike."""
    return features_of(text, **dict.fromkeys(("nats", "entropy", "match_nats"), np.full(len(text), math.log(vocabulary))))


def distribution(mixture: TokenMixture, neural: np.ndarray, entropy: float) -> np.ndarray:
    mixture.prepare(NextTokenInputs(neural, neural, float(entropy), 0.0))
    return mixture.distribution()


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
    ours, oracle = TokenMixture(config, VOCABULARY), DictionaryMixture(config, VOCABULARY)
    neural = network(np.array(text), VOCABULARY)
    known = recorded(np.array(text), neural)
    for i, token in enumerate(text):
        expected = oracle.distribution(neural[i], known["entropy"][i])
        np.testing.assert_allclose(distribution(ours, neural[i], known["entropy"][i]), expected, rtol=1e-9)
        nats, orders = ours.score(known[i : i + 1])
        expected_nats, matched = oracle.score(token, neural[i, token], known["entropy"][i])
        assert nats[0] == pytest.approx(expected_nats, abs=1e-6, rel=1e-6) and orders[0] == matched


@settings(max_examples=30)
@given(texts, st.sampled_from([0.0, 0.05, 1.0]), st.sampled_from([0.0, 0.5, 3.0]))
def test_the_tilt_equals_the_oracle(text, learning_rate, tilt):
    config = with_(mixture="tilt", learning_rate=learning_rate, tilt=tilt)
    ours, oracle, matches = TokenMixture(config, VOCABULARY), DictionaryTilt(config), DictionaryMatch()
    neural = network(np.array(text), VOCABULARY)
    known = recorded(np.array(text), neural)
    for i, token in enumerate(text):
        match, length = matches.predict()
        expected = oracle.distribution(neural[i].tolist(), match, length)
        np.testing.assert_allclose(distribution(ours, neural[i], known["entropy"][i]), expected, rtol=1e-5)
        nats, orders = ours.score(known[i : i + 1])
        assert nats[0] == pytest.approx(-math.log(expected[token]), abs=1e-5)
        assert orders[0] == length + (length > 0)
        oracle.learn(token, neural[i].tolist(), match, length)
        matches.observe(token)


@pytest.mark.parametrize("mixture, estimator", [*COUNTING, ("tilt", "interpolated")])
@pytest.mark.parametrize("changes", [{}, {"table_entries": 1024, "update_tokens": 50}])
def test_every_valid_mixture_is_a_distribution_and_scores_from_it(mixture, estimator, changes):
    """With room for all n-grams and without, counting at once and late."""
    text = repetitive_text(1500, 32, 1)
    neural = network(text, 32)
    known = recorded(text, neural)
    ours = TokenMixture(with_(mixture=mixture, estimator=estimator, **changes), 32)
    at = 0
    for place in np.sort(np.random.default_rng(2).choice(1500, 60, replace=False)):
        ours.score(known[at:place])
        probabilities = distribution(ours, neural[place], known["entropy"][place])
        assert probabilities.sum() == pytest.approx(1, abs=1e-6) and probabilities.min() > 0
        nats, _ = ours.score(known[place : place + 1])
        assert math.exp(-nats[0]) == pytest.approx(probabilities[text[place]], rel=1e-6)
        at = place + 1


@pytest.mark.parametrize("mixture", MIXTURES)
def test_hashed_ratios_sum_to_more_than_one(mixture):
    ours, text = hashed(with_(mixture=mixture), 64, 1 << 10), random_text(20_000, 64, 3)
    ours.score(uniform(text, 64))
    assert distribution(ours, np.full(64, 1 / 64), math.log(64)).sum() > 2


def hashed(config: Ngram, vocabulary: int, buckets: int) -> TokenMixture:
    """With fewer buckets than published, which fill as soon as the published ones do in a long text."""
    ours = TokenMixture(dataclasses.replace(config, estimator="hashed_ratio"), vocabulary)
    ours.estimator.counts = HashedCounts(config, vocabulary, buckets)
    return ours


@pytest.mark.parametrize("mixture, estimator", COUNTING)
@pytest.mark.parametrize("vocabulary, count", [(64, 30_000), (1024, 200_000)])
def test_noise_costs_at_least_its_entropy(mixture, estimator, vocabulary, count):
    ours = TokenMixture(with_(mixture=mixture, estimator=estimator, table_entries=1 << 24), vocabulary)
    nats = ours.score(uniform(random_text(count, vocabulary, 4), vocabulary))[0]
    assert nats.mean(dtype=np.float64) / math.log(2) >= math.log2(vocabulary) - 0.001


@pytest.mark.parametrize("vocabulary, count, buckets", [(64, 30_000, 1 << 12), (1024, 200_000, 1 << 16)])
@pytest.mark.parametrize("mixture", ["linear", "fixed"])
def test_hashed_ratios_seem_to_predict_noise(mixture, vocabulary, count, buckets):
    nats = hashed(with_(mixture=mixture), vocabulary, buckets).score(uniform(random_text(count, vocabulary, 4), vocabulary))[0]
    assert nats.mean(dtype=np.float64) / math.log(2) < math.log2(vocabulary) - 0.5


def test_a_tilt_towards_noise_costs_at_least_its_entropy():
    text = random_text(30_000, 64, 5)
    nats = TokenMixture(with_(mixture="tilt"), 64).score(recorded(text, np.full((len(text), 64), 1 / 64)))[0]
    assert nats.mean(dtype=np.float64) / math.log(2) >= 6 - 0.001


ALL = [*COUNTING, ("linear", "hashed_ratio"), ("tilt", "interpolated")]


@pytest.mark.parametrize("mixture, estimator", ALL)
def test_a_score_depends_on_nothing_after_it(mixture, estimator):
    text = repetitive_text(300, 8, 6)
    other = text.copy()
    other[200] = (text[200] + 1) % 8
    neural = network(text, 8)
    config = with_(mixture=mixture, estimator=estimator)
    one, two = (TokenMixture(config, 8).score(recorded(tokens, neural))[0] for tokens in (text, other))
    assert one[:200].tobytes() == two[:200].tobytes()
    assert one[200] != two[200] and (one[201:] != two[201:]).any()


@pytest.mark.parametrize("mixture, estimator", ALL)
@pytest.mark.parametrize("update_tokens", [1, 40])
def test_one_token_at_a_time_scores_as_all_at_once(mixture, estimator, update_tokens):
    """Exactly, over tables that grow; distributions asked for in between change nothing."""
    text = repetitive_text(3000, 32, 7)
    known = recorded(text, network(text, 32))
    config = with_(mixture=mixture, estimator=estimator, update_tokens=update_tokens)
    nats, orders = TokenMixture(config, 32).score(known)
    single = TokenMixture(config, 32)
    for i in range(len(text)):
        if i % 100 == 0:
            distribution(single, np.full(32, 1 / 32), 1.0)
        one, order = single.score(known[i : i + 1])
        assert one.tobytes() == nats[i : i + 1].tobytes() and order[0] == orders[i]
    assert nats.dtype == np.float32 and orders.dtype == np.uint8


@pytest.mark.parametrize("mixture, estimator", [*ALL, ("none", "interpolated")])
@pytest.mark.parametrize("update_tokens", [1, 40])
def test_a_decoder_scores_as_all_at_once(mixture, estimator, update_tokens):
    """It learns by `observe`, token by token."""
    text = repetitive_text(800, 32, 10)
    neural = network(text, 32)
    known = recorded(text, neural)
    config = with_(mixture=mixture, estimator=estimator, update_tokens=update_tokens)
    nats, decoder = TokenMixture(config, 32).score(known)[0], TokenMixture(config, 32)
    for i, token in enumerate(text.tolist()):
        assert nats[i] == pytest.approx(-math.log(distribution(decoder, neural[i], known["entropy"][i])[token]), rel=1e-6)
        decoder.observe(token)


def test_without_a_mixture_the_network_stands_alone():
    text = random_text(1000, 32, 11)
    known = recorded(text, network(text, 32))
    nats, orders = TokenMixture(with_(mixture="none"), 32).score(known)
    assert nats.tobytes() == known["nats"].astype(np.float32).tobytes() and not orders.any()


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
    known = recorded(text, network(text, 32))
    one, two = (TokenMixture(with_(**settings), 32).score(known)[0] for settings in (base, base | change))
    assert one.tobytes() != two.tobytes()


def test_a_text_that_repeats_is_learned():
    text = np.tile(random_text(300, 64, 9), 4)
    for estimator in ("interpolated", "kneser_ney"):
        nats = TokenMixture(with_(estimator=estimator), 64).score(uniform(text, 64))[0]
        assert nats[:300].mean() > math.log(64) - 0.1 and nats[900:].mean() < 1.0


def test_no_expert_is_ever_lost():
    """A network that is never right keeps a weight of about a millionth, and comes back when it is needed."""
    ours = TokenMixture(with_(learning_rate=5.0, entropy_bins=1), 4)
    ours.score(features_of(np.zeros(2000, np.uint16), nats=np.full(2000, 20.0)))
    assert 0 < ours.weights.weights[SETTINGS.max_order, 0, 0] < 1e-5
    assert ours.score(features_of(np.arange(200) % 4, nats=np.full(200, 1e-3)))[0][-20:].mean() < 0.7
