"""What followed each context so far, in 16 bytes per context: a 64-bit fingerprint and its last three different successors.

A successor is a token and a count of at most 15: when it is seen again it counts one more and moves to the front, while the
counts of the others are halved, down to 2. So recent tokens weigh more than old ones, and a fourth successor displaces the
least recent one. Low orders have more successors than that, but there the network is strong. A full table takes no new context.
"""

from typing import NamedTuple

import numpy as np

from fairway.kernels import njit

SUCCESSORS = 3
SUCCESSOR_BITS = 20  # 16 of the token, and above them 4 of the count; the most recent successor is lowest
MAX_COUNT = 15


class ContextTable(NamedTuple):
    """Open addressing: `entries` uint64 (capacity, 2), fingerprint (0: empty) and successors; `used` int64 (1,)."""

    entries: np.ndarray
    used: np.ndarray


def empty(capacity: int = 1 << 14) -> ContextTable:
    return ContextTable(np.zeros((capacity, 2), np.uint64), np.zeros(1, np.int64))


@njit(inline="always")
def fingerprint(key, value):
    """A fingerprint of a context and one more token; never 0 (the finaliser of splitmix64, Steele et al. 2014)."""
    z = key + (np.uint64(value) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)


@njit(inline="always")
def slot_of(entries, key):
    """Where `key` is, or the empty slot where it would go."""
    mask = np.uint64(len(entries) - 1)
    slot = (key >> np.uint64(7)) & mask
    while entries[slot, 0] != 0 and entries[slot, 0] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


def grown(table: ContextTable, coming: int, max_contexts: int) -> ContextTable:
    """The table, or a larger one where `coming` more contexts would fill more than two thirds; of `max_contexts` at most."""
    capacity = len(table.entries)
    wanted = min(int(table.used[0]) + coming, max_contexts)
    while 3 * wanted > 2 * capacity:
        capacity *= 2
    if capacity == len(table.entries):
        return table
    larger = empty(capacity)
    _refill(table.entries, larger.entries)
    larger.used[0] = table.used[0]
    return larger


@njit
def _refill(old, new):
    for i in range(len(old)):
        if old[i, 0] != 0:
            slot = slot_of(new, old[i, 0])
            new[slot, 0], new[slot, 1] = old[i, 0], old[i, 1]


@njit(inline="always")
def token_of(successors, k):
    """The k-th most recent successor; meaningless where its count is 0."""
    return np.int64(successors >> np.uint64(SUCCESSOR_BITS * k)) & 0xFFFF


@njit(inline="always")
def count_of(successors, k):
    return np.int64(successors >> np.uint64(SUCCESSOR_BITS * k + 16)) & MAX_COUNT


@njit
def followed(successors, token):
    """The successors after `token` has followed once more."""
    count, place = 0, SUCCESSORS - 1
    for k in range(SUCCESSORS):
        if count_of(successors, k) and token_of(successors, k) == token:
            count, place = count_of(successors, k), k
            break
    after = np.uint64(min(count + 1, MAX_COUNT) << 16 | token)
    for k in range(SUCCESSORS):
        older = count_of(successors, k)
        if k != place and older:
            kept = np.uint64((older + 2) // 2 if older > 2 else older) << np.uint64(16) | np.uint64(token_of(successors, k))
            after |= kept << np.uint64(SUCCESSOR_BITS * (k + (k < place)))
    return after


@njit(inline="always")
def count_successor(entries, used, max_contexts, key, token):
    """Token has followed the context `key`; a context that is new and finds the table full is passed over."""
    slot = slot_of(entries, key)
    if entries[slot, 0] == 0:
        if used[0] >= max_contexts:
            return
        entries[slot, 0] = key
        used[0] += 1
    entries[slot, 1] = followed(entries[slot, 1], token)
