"""The n-gram cache as a language model: counts of the text so far, each order smoothed into the one below.

Order n predicts from the last n − 1 tokens, P_n(t) = (max(c_n(t) − d, 0) + d·types_n·P_{n−1}(t)) / total_n, interpolated
absolute discounting; order 0 is uniform. Every order is a distribution over the whole vocabulary whatever the counts.
Contexts are told apart by 64-bit fingerprints in open-addressing tables that double when half full: unlike the hashed
tables of #885, no two contexts share a count, and a token's probability does not grow with the load of a table.
"""

from typing import NamedTuple

import numba
import numpy as np

START_CAPACITY = 1 << 16


class Table(NamedTuple):
    """Open addressing: `keys` uint64 (capacity,), 0 is empty; `values` int32 (capacity, 2); `used` int64 (1,)."""

    keys: np.ndarray
    values: np.ndarray
    used: np.ndarray


def empty_table(capacity: int = START_CAPACITY) -> Table:
    return Table(np.zeros(capacity, np.uint64), np.zeros((capacity, 2), np.int32), np.zeros(1, np.int64))


@numba.njit(cache=True, inline="always")
def mix(key, token):
    """A 64-bit fingerprint of a context and one more token; never 0 (the finaliser of splitmix64, Steele et al. 2014)."""
    z = key + (np.uint64(token) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)


@numba.njit(cache=True)
def slot_of(keys, key):
    """Where `key` is, or the empty slot where it would go."""
    mask = np.uint64(len(keys) - 1)
    slot = (key >> np.uint64(1)) & mask
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@numba.njit(cache=True)
def grown(table):
    """The table itself, or one of twice the capacity with the same entries when it is half full."""
    if 2 * table.used[0] < len(table.keys):
        return table
    keys = np.zeros(2 * len(table.keys), np.uint64)
    values = np.zeros((2 * len(table.keys), 2), np.int32)
    for old in range(len(table.keys)):
        if table.keys[old] != 0:
            slot = slot_of(keys, table.keys[old])
            keys[slot] = table.keys[old]
            values[slot] = table.values[old]
    return Table(keys, values, table.used)


@numba.njit(cache=True)
def find_contexts(contexts, history, fingerprints, totals, types):
    """For order n = 1 … orders: the fingerprint of the last n − 1 tokens, their count and their distinct successors.

    `history` holds the latest token first, −1 where the text has not begun. Returns the longest order seen so far.
    """
    key = np.uint64(0x243F6A8885A308D3)
    matched = 0
    for n in range(len(totals)):
        if n:
            key = mix(key, history[n - 1] + 1)
        fingerprints[n] = key | np.uint64(1)
        slot = slot_of(contexts.keys, fingerprints[n])
        totals[n], types[n] = contexts.values[slot, 0], contexts.values[slot, 1]
        if totals[n] > 0:
            matched = n + 1
    return matched


@numba.njit(cache=True)
def order_probabilities(pairs, token, vocabulary_size, discount, fingerprints, totals, types, matched, out):
    """P_n(token) for n = 1 … matched, into `out`."""
    probability = 1.0 / vocabulary_size
    for n in range(matched):
        if totals[n] > 0:
            count = pairs.values[slot_of(pairs.keys, mix(fingerprints[n], token)), 0]
            probability = (max(count - discount, 0.0) + discount * types[n] * probability) / totals[n]
        out[n] = probability


@numba.njit(cache=True)
def count_token(contexts, pairs, token, fingerprints, history):
    """Add `token` after each of the contexts, and make it the latest token of the history."""
    for n in range(len(fingerprints)):
        pair = mix(fingerprints[n], token)
        slot = slot_of(pairs.keys, pair)
        new = pairs.keys[slot] == 0
        if new:
            pairs.keys[slot] = pair
            pairs.used[0] += 1
        pairs.values[slot, 0] += 1
        slot = slot_of(contexts.keys, fingerprints[n])
        if contexts.keys[slot] == 0:
            contexts.keys[slot] = fingerprints[n]
            contexts.used[0] += 1
        contexts.values[slot, 0] += 1
        contexts.values[slot, 1] += new
    history[1:] = history[:-1].copy()
    history[0] = token
