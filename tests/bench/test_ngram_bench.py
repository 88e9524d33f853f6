"""The benchmark of the n-gram mixtures, small: its peers score alike, and it ends with its figures."""

import math
import re

import numpy as np
import pytest

from bench.ngram import BEST_LINEAR, BEST_TREE, Recorded, RunningSums, Sizes, report, without_cache
from bench.ngram_plan import context_gigabytes, long_text, ngram_gigabytes, plan, power_law, random_features, tree
from fairway.mixture import context_table
from fairway.mixture.tree_mixture import TreeMixture
from tests.mixture.dictionary import DictionaryCounts

FIGURES = [
    "linear_tokens_per_second",
    "linear_to_dictionary",
    "bytes_per_ngram",
    "plan_seconds",
    "plan_gigabytes",
    "tree_tokens_per_second",
    "tree_minus_linear_bpb",
    "tree_to_dictionary",
    "bytes_per_context",
    "tree_plan_seconds",
    "tree_plan_gigabytes",
]


@pytest.fixture
def text() -> np.ndarray:
    random = np.random.default_rng(0)
    phrases = random.integers(0, 1024, (20, 30))
    return phrases[random.integers(0, 20, 40)].ravel().astype(np.uint16)


@pytest.fixture
def given(text) -> Recorded:
    random = np.random.default_rng(1)
    features = random_features(text, 1024, random)
    return Recorded(features, 3 * len(text), random.permutation(1024).astype(np.uint16), np.arange(1024) % 5 == 0, 1, text)


def test_it_ends_with_its_figures(given):
    printed = report(given, Sizes(speed=3000, linear_peer=300, tree_peer=100, plan=4000, full=10_000))
    figures = re.findall(r"^figure (\w+) = (-?[\d.]+)$", printed, re.MULTILINE)
    assert [name for name, _ in figures] == FIGURES and printed.splitlines()[-1].startswith(f"figure {FIGURES[-1]}")
    assert f"| network alone | {given.features['nats'].sum(dtype=np.float64) / math.log(2) / given.text_bytes:.4f} |" in printed
    assert printed.count("\n| 4,000 | ") == 2


def test_running_sums_estimate_as_the_sums_do(text):
    plain, running = DictionaryCounts(BEST_LINEAR, 1024), RunningSums(BEST_LINEAR, 1024)
    for token in text[:400].tolist():
        one = plain.estimates(plain.seen(plain.text), token)
        np.testing.assert_allclose(running.estimates(running.seen(running.text), token), one, rtol=1e-9)
        plain.count(token)
        running.count(token)


def test_without_the_cache_the_network_speaks_alone(given):
    features = without_cache(given.features)
    np.testing.assert_array_equal(features["paths"], given.features["paths"][..., [0, 0]])
    assert not features["nearest"].any()


def test_the_long_text_begins_with_the_real_one(text):
    long = long_text(text, 3000, exchanged=0.1)
    assert len(long) == 3000 and (long[: len(text)] == text).all()
    changed = (long[len(text) : 2 * len(text)] != text).mean()
    assert 0.05 < changed < 0.15


def test_a_plan_counts_what_the_mixture_stores(given):
    mixture: TreeMixture = given.mixture(BEST_TREE)
    outcome = plan(tree(mixture), given.train, 4000, 10_000, vocabulary=1024)
    last = [cell.strip() for cell in outcome.lines[6].split("|")]
    peer = given.mixture(BEST_TREE)
    peer.score(random_features(long_text(given.train, 4000), 1024, np.random.default_rng(2)))
    assert last[1:3] == ["4,000", f"{peer.table.used[0]:,}"]
    assert outcome.size == pytest.approx(mixture.table.entries.nbytes / peer.table.used[0])


def test_extrapolation():
    assert power_law([1, 10, 100], [7.0, 20.0, 2000.0]) == pytest.approx((0.2, 2.0))
    in_use, most = ngram_gigabytes(50_000_000, 1024)
    assert in_use == pytest.approx(50e6 * 20e-9 + 4e-9 * 2**26 * 2, rel=0.3) and most >= in_use


@pytest.mark.parametrize("count", [10_922, 10_923, 1_000_000])
def test_gigabytes_are_those_of_the_table_that_holds_so_many(count):
    grown = context_table.grown(context_table.empty(), count, 1 << 30)
    assert context_gigabytes(count) == pytest.approx((grown.entries.nbytes / 1e9, 1.5 * grown.entries.nbytes / 1e9))
