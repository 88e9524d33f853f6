"""The n-gram estimates against dictionaries of tuples and by hand; tables that grow and tables that are full."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.mixture.config import Ngram
from fairway.mixture.estimators import Counts
from fairway.mixture.hashed_counts import HashedCounts
from tests.mixture.dictionary import DictionaryCounts, HashedDictionaryCounts
from tests.plain_settings import LINEAR as SETTINGS

VOCABULARY = 6
VALID = ["interpolated", "kneser_ney", "add_one"]

texts = st.lists(st.integers(0, VOCABULARY - 1) | st.sampled_from([2, 3]), min_size=1, max_size=80)


def with_(**changes) -> Ngram:
    return dataclasses.replace(SETTINGS, **changes)


def random_text(count: int, vocabulary: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


def check(ours, oracle, text, vocabulary: int, stride: int = 1) -> None:
    """Every estimate of every token, at every `stride`-th place of a text."""
    for i, token in enumerate(np.asarray(text).tolist()):
        seen = oracle.seen(oracle.text)
        if i % stride == 0:
            estimates, matched = ours.of_all_tokens()
            assert matched == len(seen)
            expected = [oracle.estimates(seen, other) for other in range(vocabulary)]
            np.testing.assert_allclose(estimates[:, :matched], np.array(expected), rtol=1e-9, atol=1e-12)
        learned, orders = ours.learn(np.array([token]))
        assert orders[0] == len(seen)
        np.testing.assert_allclose(learned[0, : len(seen)], oracle.estimates(seen, token), rtol=1e-9, atol=1e-12)
        oracle.count(token)


@settings(max_examples=60)
@given(texts, st.integers(1, 6), st.sampled_from(VALID), st.sampled_from([[0.4] * 3, [0.3, 0.9, 2.0]]))
def test_every_estimate_equals_the_oracle(text, max_order, estimator, discounts):
    config = with_(max_order=max_order, estimator=estimator, discounts=discounts)
    check(Counts(config, VOCABULARY), DictionaryCounts(config, VOCABULARY), text, VOCABULARY)


@settings(max_examples=15)
@given(texts, st.integers(2, 6), st.sampled_from([16, 1 << 12]))
def test_hashed_ratios_equal_the_oracle(text, max_order, buckets):
    config = with_(max_order=max_order, estimator="hashed_ratio")
    check(HashedCounts(config, VOCABULARY, buckets), HashedDictionaryCounts(config, VOCABULARY, buckets), text, VOCABULARY)


@pytest.mark.parametrize("estimator", VALID)
def test_a_full_table_counts_what_it_holds(estimator):
    """1,024 entries are full after some 300 tokens; what follows repeats the first, and brings new ones."""
    text = np.concatenate([random_text(400, 12, 0), random_text(400, 12, 0)[200:], random_text(200, 12, 1)])
    config = with_(estimator=estimator, table_entries=1024)
    ours, oracle = Counts(config, 12), DictionaryCounts(config, 12)
    check(ours, oracle, text, 12, stride=7)
    assert 1024 - config.max_order < oracle.entries <= 1024
    assert ours.table.used[0] == 1 + 12 + oracle.entries and len(ours.table.nodes) <= ours.limit


@pytest.mark.parametrize("estimator", VALID)
@pytest.mark.parametrize("entries", [1024, 1 << 20])
def test_every_order_is_a_distribution(estimator, entries):
    """After noise and after structure, with room left and without."""
    ours = Counts(with_(estimator=estimator, table_entries=entries), 64)
    text = np.concatenate([random_text(2000, 64, 2), np.tile(random_text(50, 64, 3), 20), random_text(2000, 8, 4)])
    orders = set()
    for piece in np.array_split(text, 150):
        ours.learn(piece)
        estimates, matched = ours.of_all_tokens()
        assert (estimates[:, :matched] >= 0).all()
        np.testing.assert_allclose(estimates[:, :matched].sum(0), 1, atol=1e-9)
        orders.add(matched)
    assert max(orders) == (4 if entries == 1024 else 5) and len(orders) > 2


def test_hashed_ratios_are_no_distribution():
    ours = HashedCounts(with_(estimator="hashed_ratio"), 64, buckets=1 << 10)
    ours.learn(random_text(20_000, 64, 5))
    estimates, matched = ours.of_all_tokens()
    assert estimates[:, matched - 1].sum() > 10


def test_growing_tables_change_nothing():
    """The tokens in pieces, so that the table doubles at other places than in one call."""
    text = random_text(20_000, 64, 6)
    whole, pieces = Counts(SETTINGS, 64), Counts(SETTINGS, 64)
    capacity = len(whole.table.nodes)
    expected = whole.learn(text)
    found = [pieces.learn(piece) for piece in np.array_split(text, 33)]
    assert len(whole.table.nodes) >= 8 * capacity
    np.testing.assert_array_equal(np.concatenate([matched for _, matched in found]), expected[1])
    for k in range(SETTINGS.max_order):
        rows = expected[1] > k
        np.testing.assert_array_equal(np.concatenate([estimates for estimates, _ in found])[rows, k], expected[0][rows, k])


def test_what_is_read_is_not_counted():
    text = random_text(300, VOCABULARY, 7)
    ours, oracle = Counts(SETTINGS, VOCABULARY), DictionaryCounts(SETTINGS, VOCABULARY)
    ours.learn(text[:200])
    for token in text[:200].tolist():
        oracle.count(token)
    estimates, matched = ours.look(text[200:])
    for i in range(100):
        seen = oracle.seen(text[: 200 + i].tolist())
        assert matched[i] == len(seen)
        np.testing.assert_allclose(estimates[i, : len(seen)], oracle.estimates(seen, int(text[200 + i])), rtol=1e-9)


@pytest.mark.parametrize(
    "estimator, unigram",
    [
        ("interpolated", [(2.5 + 0.25) / 5, (1.5 + 0.25) / 5, 0.25 / 5, 0.25 / 5]),  # a 3, b 2
        ("kneser_ney", [(1.5 + 0.25) / 3, (0.5 + 0.25) / 3, 0.25 / 3, 0.25 / 3]),  # a: the beginning and (b a); b: (a b)
        ("add_one", [4 / 9, 3 / 9, 1 / 9, 1 / 9]),
    ],
)
def test_counts_by_hand(estimator, unigram):
    """After "a b a b a" of orders 1 and 2, all discounts 1/2: a has been followed by b twice."""
    ours = Counts(with_(max_order=2, estimator=estimator, discounts=[0.5, 0.5, 0.5]), 4)
    ours.learn(np.array([0, 1, 0, 1, 0]))
    estimates, matched = ours.of_all_tokens()
    below = np.array(unigram)
    bigram = [1 / 6, 3 / 6, 1 / 6, 1 / 6] if estimator == "add_one" else [0, 0.75, 0, 0] + below / 4
    assert matched == 2
    np.testing.assert_allclose(estimates, np.stack([below, bigram], 1))
