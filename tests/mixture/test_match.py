"""The match model against a dictionary that remembers when each successor came; the bound of the table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.mixture.match import LONGEST, MatchModel
from tests.mixture.dictionary import DictionaryMatch


@settings(max_examples=60)
@given(st.lists(st.integers(0, 3), max_size=80))
def test_every_match_equals_the_oracle(text):
    ours, oracle = MatchModel(4, 1 << 20), DictionaryMatch()
    for token in text:
        assert ours.predict() == oracle.predict()
        ours.observe(token)
        oracle.observe(token)
    assert ours.predict() == oracle.predict()


def test_a_stream_is_predicted_token_by_token():
    """In pieces, over tables that grow."""
    random = np.random.default_rng(0)
    phrases = random.integers(0, 200, (50, 20))
    text = np.concatenate([phrases[i] if i < 50 else random.integers(0, 200, 3) for i in random.integers(0, 60, 1500)])
    ours, pieces, oracle = MatchModel(200, 1 << 20), MatchModel(200, 1 << 20), DictionaryMatch()
    capacity = len(ours.table.nodes)
    matches, lengths = ours.scan(text)
    assert matches.dtype == np.uint16 and lengths.dtype == np.uint8
    assert len(ours.table.nodes) > capacity and set(lengths.tolist()) == set(range(LONGEST + 1))
    parts = [pieces.scan(piece) for piece in np.array_split(text, 77)]
    np.testing.assert_array_equal(np.concatenate([part for part, _ in parts]), matches)
    for token, match, length in zip(text.tolist(), matches.tolist(), lengths.tolist(), strict=True):
        assert (match, length) == oracle.predict()
        oracle.observe(token)


@pytest.mark.parametrize(
    "text, match", [([], (0, 0)), ([5], (0, 0)), ([5, 5], (5, 1)), ([5, 6, 5], (6, 1)), ([5, 6, 7, 5], (6, 1))]
)
def test_matches_by_hand(text, match):
    ours = MatchModel(8, 1024)
    ours.scan(np.array(text, np.int64))
    assert ours.predict() == match


def test_of_equals_the_first_to_be_as_frequent():
    """After 1 came 2, 3, 3, 2: 3 was the first to come twice."""
    ours = MatchModel(4, 1024)
    ours.scan(np.array([1, 2, 0, 1, 3, 0, 1, 3, 0, 1, 2, 2, 0, 3, 1]))
    assert ours.predict() == (3, 1)


def test_a_full_table_predicts_from_what_it_holds():
    text = np.random.default_rng(1).integers(0, 16, 3000)
    ours = MatchModel(16, 1024)
    ours.scan(text)
    assert len(ours.table.nodes) == 1 + 16 + 1024 and len(ours.table.nodes) - ours.table.used[0] <= LONGEST
    assert ours.scan(text[:60])[1].max() == LONGEST  # the beginning of the text is known by heart
