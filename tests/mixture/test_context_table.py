"""The table of successors against lists of [token, count]; its bits; growth, collisions and a table that is full."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.mixture.context_table import (
    MAX_COUNT,
    SUCCESSORS,
    ContextTable,
    count_of,
    count_successor,
    empty,
    fingerprint,
    followed,
    grown,
    slot_of,
    token_of,
)

tokens = st.sampled_from([0, 1, 2, 3, 4, 0xFFFF]) | st.integers(0, 0xFFFF)
Followers = list[tuple[int, int]]  # (token, count), the most recent first


def plain_followed(followers: Followers, token: int) -> Followers:
    count = dict(followers).get(token, 0)
    others = [(other, (times + 2) // 2 if times > 2 else times) for other, times in followers if other != token]
    return [(token, min(count + 1, 15)), *others[:2]]


def unpacked(bits) -> Followers:
    found = [(int(token_of(np.uint64(bits), k)), int(count_of(np.uint64(bits), k))) for k in range(SUCCESSORS)]
    return [(token, count) for token, count in found if count]


def key_of(context: int) -> np.uint64:
    return np.uint64(fingerprint(np.uint64(99), context))


def count(table: ContextTable, key: np.uint64, token: int, most: int = 1 << 20) -> None:
    count_successor(table.entries, table.used, most, key, token)


def successors_of(table: ContextTable, key: np.uint64) -> Followers:
    return unpacked(table.entries[slot_of(table.entries, key), 1])


@given(st.lists(tokens, max_size=60))
def test_an_entry_equals_a_list(sequence):
    bits, followers = 0, []
    for token in sequence:
        bits, followers = followed(np.uint64(bits), token), plain_followed(followers, token)
        assert unpacked(bits) == followers


@given(st.lists(st.tuples(st.integers(0, 9), tokens), max_size=60))
def test_a_table_that_grows_equals_a_dictionary_of_lists(sequence):
    table, plain = empty(2), {}
    for context, token in sequence:
        table = grown(table, 1, 1 << 20)
        count(table, key_of(context), token)
        plain[context] = plain_followed(plain.get(context, []), token)
    assert table.used[0] == np.count_nonzero(table.entries[:, 0]) == len(plain)
    assert all(successors_of(table, key_of(context)) == plain.get(context, []) for context in range(10))


def test_the_bits_of_an_entry():
    table = empty(4)
    for token in (5, 5, 0xABCD):
        count(table, np.uint64(129), token)
    assert table.entries[0].nbytes == 16 and table.entries.dtype == np.uint64
    assert table.entries[1].tolist() == [129, 0xABCD | 1 << 16 | 5 << 20 | 2 << 36]  # 129 >> 7 is 1, the slot
    assert table.entries[[0, 2, 3]].sum() == 0 and table.used.tolist() == [1]


def test_a_count_stops_at_most_and_falls_to_two_when_others_follow():
    bits = 0
    for _ in range(20):
        bits = followed(np.uint64(bits), 7)
    assert unpacked(bits) == [(7, MAX_COUNT)]
    for expected in (8, 5, 3, 2, 2):
        bits = followed(np.uint64(bits), 8)
        assert unpacked(bits)[1] == (7, expected)


def test_contexts_that_want_the_same_slot_keep_apart():
    """Five of them, around the end of a table of eight."""
    table, keys = empty(8), [np.uint64(i << 20 | 7 << 7 | 1) for i in range(5)]
    for i, key in enumerate(keys):
        count(table, key, 100 + i)
        count(table, keys[0], 50)
    assert [successors_of(table, key)[0][0] for key in keys] == [50, 101, 102, 103, 104]
    assert np.count_nonzero(table.entries[:, 0]) == 5 and table.entries[6, 0] == 0


def test_a_table_grows_before_it_is_more_than_two_thirds_full():
    table, sizes = empty(4), []
    for context in range(3000):
        table = grown(table, 1, 1 << 20)
        count(table, key_of(context), context)
        sizes.append(len(table.entries))
        assert 3 * table.used[0] <= 2 * sizes[-1]
    assert len(set(sizes)) == 12 and sizes[-1] == 8192
    assert all(successors_of(table, key_of(context)) == [(context, 1)] for context in range(3000))


@pytest.mark.parametrize(
    "coming, most, capacity", [(0, 99, 8), (2, 99, 8), (3, 99, 16), (90, 99, 256), (90, 5, 8), (90, 9, 16)]
)
def test_a_table_grows_for_what_is_coming_and_no_more_than_it_may_hold(coming, most, capacity):
    table = empty(8)
    for context in range(3):
        count(table, key_of(context), context)
    larger = grown(table, coming, most)
    assert len(larger.entries) == capacity and larger.used[0] == 3 and (larger is table) == (capacity == 8)


def test_a_full_table_takes_no_new_context_and_goes_on_with_the_old_ones():
    table, plain = empty(16), {}
    for step, context in enumerate(np.random.default_rng(0).integers(0, 30, 500).tolist()):
        table = grown(table, 1, 9)
        count(table, key_of(context), step, most=9)
        if context in plain or len(plain) < 9:
            plain[context] = plain_followed(plain.get(context, []), step)
    assert table.used[0] == len(plain) == 9 and len(table.entries) == 16
    assert all(successors_of(table, key_of(context)) == plain.get(context, []) for context in range(30))


def test_a_fingerprint_is_an_output_of_splitmix64():
    """The first three for the seed 0 (Vigna's splitmix64.c); a fingerprint is odd, as 0 means an empty slot."""
    outputs = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert [fingerprint(np.uint64(0), value) for value in range(3)] == [output | 1 for output in outputs]


def test_contexts_have_fingerprints_of_their_own():
    """All of up to three out of 30 tokens."""
    keys, longer = [np.uint64(1)], [np.uint64(1)]
    for _ in range(3):
        longer = [np.uint64(fingerprint(key, token)) for key in longer for token in range(30)]
        keys += longer
    assert len(set(keys)) == 1 + 30 + 30**2 + 30**3 and min(keys) > 0
