"""The n-grams of a text: one table of all orders, exact and bounded, about 26 bytes per n-gram.

An n-gram is a node, and its key is the node of its context and its last token: keys are exact, not fingerprints. The node is
also a context of the next token, so that finding the n-grams that a token ends finds the contexts of the token after it: one
look-up per token and order. Nodes are numbered as they come, so that those of one passage lie side by side. A hash index of
32-bit entries leads to them; the bits that a node's number leaves free hold a tag, so that few look-ups hit a wrong node.
"""

from typing import NamedTuple

import numpy as np

from fairway.kernels import njit

ROOT = 0  # the node of the empty context; those of single tokens follow, and always have their places


class Table(NamedTuple):
    """`nodes`: records with at least `parent`, `token` and `count`; `index`: uint32, a power of two; `used`: int64 (1,)."""

    nodes: np.ndarray
    index: np.ndarray
    used: np.ndarray


def empty_table(node: np.dtype, vocabulary_size: int, limit: int) -> Table:
    capacity = min(4096 + 2 * vocabulary_size, limit)
    return Table(np.zeros(capacity, node), _empty_index(capacity), np.array([1 + vocabulary_size]))


def grown(table: Table, vocabulary_size: int, limit: int) -> Table:
    """The same n-grams with twice the room, or with room for `limit` nodes."""
    capacity = min(2 * len(table.nodes), limit)
    nodes = np.zeros(capacity, table.nodes.dtype)  # pages that are not written to take no memory
    used = table.used[0]
    nodes[:used].view(np.uint32)[:] = table.nodes[:used].view(np.uint32)  # NumPy copies records field by field
    larger = Table(nodes, _empty_index(capacity), table.used)
    reindex(larger, 1 + vocabulary_size)
    return larger


def _empty_index(capacity: int) -> np.ndarray:
    """Seven eighths full at most, when there are `capacity` nodes."""
    return np.zeros(1 << (capacity * 8 // 7).bit_length(), np.uint32)


@njit
def scrambled(parent, token):
    """64 bits of which any few are as good as random (multiply, shift, multiply: as the finaliser of splitmix64)."""
    code = (np.uint64(parent) << np.uint64(16) | np.uint64(token)) * np.uint64(0x9E3779B97F4A7C15)
    code = (code ^ code >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
    return code ^ code >> np.uint64(32)


@njit
def child(table, parent, token, code):
    """The node of the n-gram that `token` makes of the context `parent`; 0 when it has not been counted."""
    if parent == ROOT:
        return token + 1 if table.nodes[token + 1].count else 0
    mask = np.uint64(len(table.index) - 1)
    slot, tag = code >> np.uint64(32) & mask, code & ~mask & np.uint64(0xFFFFFFFF)
    entry = np.uint64(table.index[slot])
    while entry != 0:
        if entry & ~mask == tag:
            node = table.nodes[entry & mask]
            if node.parent == parent and node.token == token:
                return np.int64(entry & mask)
        slot = (slot + np.uint64(1)) & mask
        entry = np.uint64(table.index[slot])
    return 0


@njit
def enter(table, node, code):
    """Put a node into the index."""
    mask = np.uint64(len(table.index) - 1)
    slot = code >> np.uint64(32) & mask
    while table.index[slot] != 0:
        slot = (slot + np.uint64(1)) & mask
    table.index[slot] = code & ~mask & np.uint64(0xFFFFFFFF) | np.uint64(node)


@njit
def reindex(table, first):
    for node in range(first, table.used[0]):
        enter(table, node, scrambled(table.nodes[node].parent, table.nodes[node].token))


@njit
def add(table, parent, token, code):
    """A node for an n-gram that has none. There must be room."""
    if parent == ROOT:
        return token + 1
    node = table.used[0]
    table.used[0] += 1
    table.nodes[node].parent = parent
    table.nodes[node].token = token
    enter(table, node, code)
    return node


class Cursor(NamedTuple):
    """A position in a text: `contexts` int64 (orders,), the nodes of the last 0, 1, … tokens, of which the first `known`
    int64 (1,) are in the table; `found` int64 and `codes` uint64 (orders,), see `find`."""

    contexts: np.ndarray
    known: np.ndarray
    found: np.ndarray
    codes: np.ndarray


def start_of_text(orders: int) -> Cursor:
    return Cursor(np.full(orders, ROOT), np.ones(1, np.int64), np.zeros(orders, np.int64), np.zeros(orders, np.uint64))


@njit
def find(table, cursor, orders, token):
    """found[k] = the node of the last k tokens and `token`, k < orders; returns how many there are, the shortest first.

    A text that has an n-gram also has the shorter ones that end it, so the first that is missing ends the search. `codes` are
    left for `add_longer`.
    """
    mask = np.uint64(len(table.index) - 1)
    touched = np.uint64(0)
    # Touch the index entries of all orders before any is needed: the cache misses overlap instead of following each other.
    for k in range(1, cursor.known[0]):
        cursor.codes[k] = scrambled(cursor.contexts[k], token)
        touched |= np.uint64(table.index[cursor.codes[k] >> np.uint64(32) & mask])
    cursor.codes[0] = touched  # order 1 needs no code; unless the loads are used, the compiler drops them
    for k in range(orders):
        cursor.found[k] = child(table, cursor.contexts[k], token, cursor.codes[k])
        if cursor.found[k] == 0:
            return k
    return orders


@njit
def add_longer(table, cursor, seen, token):
    """Nodes for the n-grams longer than the `seen` ones, if there is room for all orders; returns how many have one now."""
    if table.used[0] + len(cursor.contexts) > len(table.nodes):
        return seen
    for k in range(seen, cursor.known[0]):
        cursor.found[k] = add(table, cursor.contexts[k], token, cursor.codes[k])
    return cursor.known[0]


@njit
def advance(cursor, stored):
    """The n-grams that a token ended, of which `stored` have nodes, become the contexts of the next one."""
    known = min(stored + 1, len(cursor.contexts))
    for k in range(1, known):
        cursor.contexts[k] = cursor.found[k - 1]
    cursor.known[0] = known
