"""The benchmark of the n-gram mixtures, small: its peers score alike, and it ends with its figures."""

import math
import re

import numpy as np
import pytest

from bench.ngram import BEST_LINEAR, RunningSums, evidence_of, gigabytes, long_text, power_law, report
from tests.score.dictionary import DictionaryCounts


@pytest.fixture
def text() -> np.ndarray:
    random = np.random.default_rng(0)
    phrases = random.integers(0, 1024, (20, 30))
    return phrases[random.integers(0, 20, 40)].ravel().astype(np.uint16)


def test_it_ends_with_its_figures(text):
    nats = np.random.default_rng(1).gamma(1.0, 2.5, len(text)).astype(np.float32)
    printed = report(evidence_of(text, nats, np.minimum(nats, 6)), 3 * len(text), text, (3000, 300, 4000, 10_000))
    figures = re.findall(r"^figure (\w+) = ([\d.]+)$", printed, re.MULTILINE)
    names = ["linear_tokens_per_second", "linear_to_dictionary", "plan_seconds", "plan_gigabytes"]
    assert [name for name, _ in figures] == names and printed.splitlines()[-1].startswith("figure plan_gigabytes")
    assert f"| network alone | {nats.sum() / math.log(2) / (3 * len(text)):.4f} |" in printed
    assert "| 4,000 | " in printed


def test_running_sums_estimate_as_the_sums_do(text):
    plain, running = DictionaryCounts(BEST_LINEAR, 1024), RunningSums(BEST_LINEAR, 1024)
    for token in text[:400].tolist():
        one = plain.estimates(plain.seen(plain.text), token)
        np.testing.assert_allclose(running.estimates(running.seen(running.text), token), one, rtol=1e-9)
        plain.count(token)
        running.count(token)


def test_the_long_text_begins_with_the_real_one(text):
    long = long_text(text, 3000, exchanged=0.1)
    assert len(long) == 3000 and (long[: len(text)] == text).all()
    changed = (long[len(text) : 2 * len(text)] != text).mean()
    assert 0.05 < changed < 0.15


def test_extrapolation():
    assert power_law([1, 10, 100], [7.0, 20.0, 2000.0]) == pytest.approx((0.2, 2.0))
    in_use, most = gigabytes(50_000_000)
    assert in_use == pytest.approx(50e6 * 20e-9 + 4e-9 * 2**26 * 2, rel=0.3) and most >= in_use
