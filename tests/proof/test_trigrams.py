"""The trigram model against one in plain Python, and its sums over the vocabulary."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof.trigrams import DISCOUNT, Trigrams

VOCABULARY = 5
TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=3, max_size=60)


def plain(train: list[int], context: tuple[int, ...], token: int) -> float:
    """P(token | context), by dictionaries."""
    if not context:
        return (train.count(token) + 0.5) / (len(train) + 0.5 * VOCABULARY)
    followers: dict[tuple, Counter] = defaultdict(Counter)
    for at in range(len(context), len(train)):
        followers[tuple(train[at - len(context) : at])][train[at]] += 1
    found, lower = followers[context], plain(train, context[1:], token)
    if not found:
        return lower
    return (max(found[token] - DISCOUNT, 0) + DISCOUNT * len(found) * lower) / found.total()


@given(TOKENS, TOKENS)
def test_it_is_interpolated_absolute_discounting(train, text):
    nats = Trigrams(np.array(train, np.uint16), VOCABULARY).nats(np.array(text, np.uint16))
    for at in range(1, len(text)):
        assert nats[at - 1] == pytest.approx(-np.log(plain(train, tuple(text[max(0, at - 2) : at]), text[at])))


@given(TOKENS, st.integers(0, VOCABULARY - 1), st.integers(0, VOCABULARY - 1))
def test_it_is_a_distribution(train, first, second):
    model = Trigrams(np.array(train, np.uint16), VOCABULARY)
    nats = [model.nats(np.array([first, second, token], np.uint16))[1] for token in range(VOCABULARY)]
    assert np.exp(-np.array(nats)).sum() == pytest.approx(1)
