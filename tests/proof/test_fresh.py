"""Two texts and what they cost: the ratio, what the reference takes out of it, and how far chance moves it."""

import bz2
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof import fresh

WORDS = [bytes([a, b, 32]) for a in range(97, 123) for b in range(97, 123)]


def texts(seed: int, count: int, kinds: int = 200) -> bytes:
    """Documents of random words, each with a vocabulary of its own, so that some are harder than others."""
    chosen, found = random.Random(seed), []
    for _ in range(count):
        own = chosen.sample(WORDS, chosen.randint(20, kinds))
        found.append(b"".join(chosen.choices(own, k=chosen.randint(200, 600))))
    return b"\0".join(found)


def cost(text: bytes, factor: float = 1.0) -> float:
    """bpb of a compressor whose cost follows the reference's, document by document."""
    parts = fresh.documents(text)
    return factor * 8 * sum(len(bz2.compress(part)) for part in parts) / sum(map(len, parts))


def test_honest_texts_of_one_kind_hold_and_known_ones_do_not():
    held = 0
    for seed in range(20):
        claimed, other = texts(seed, 20), texts(seed + 100, 20)
        assert not fresh.compare(claimed, cost(claimed, 0.5), other, cost(other)).as_expected
        noise = np.random.default_rng(seed).normal(1, 0.02, 2)
        held += fresh.compare(claimed, cost(claimed, noise[0]), other, cost(other, noise[1])).as_expected
    assert held == 20


def test_a_text_that_is_easy_for_everyone_is_no_evidence():
    claimed, other = texts(1, 20, 40), texts(2, 20, 400)
    found = fresh.compare(claimed, cost(claimed), other, cost(other))
    assert found.ratio < 0.95 and found.adjusted == pytest.approx(1, abs=0.01) and found.as_expected


def test_one_document_against_one_has_a_wide_range():
    claimed, other = (texts(seed, 60).replace(b"\0", b" ") for seed in (1, 2))
    found = fresh.compare(claimed, cost(claimed), other, cost(other))
    assert found.documents == (1, 1) and found.error == pytest.approx(fresh.SPREAD * 2**0.5)
    assert found.as_expected and not fresh.compare(claimed, cost(claimed, 0.5), other, cost(other)).as_expected


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30))
def test_equal_documents_are_taken_to_differ_all_the_same(sizes):
    size = np.array(sizes, np.float64)
    error = fresh.log_error(2 * size, size)
    assert fresh.SPREAD / len(sizes) ** 0.5 <= error * (1 + 1e-9) and error <= fresh.SPREAD * (1 + 1e-9)


def test_more_documents_narrow_the_range():
    few, many = (fresh.log_error(np.tile([100.0, 400.0], n), np.full(2 * n, 800.0)) for n in (8, 128))
    assert few == pytest.approx(4 * many, rel=0.15)
