"""A binary tree over the vocabulary, fixed by the network: its leaves are tokens, and tokens near in the head are near in it.

A token is a walk of about log2 V yes-or-no decisions from the root. A node is a range of leaves, lo ≤ rank < hi; it is
split in the middle, and `middle` identifies it: no two nodes have the same. So the order of the leaves is the whole tree, and
the decoder computes it from the weights: sums run in a fixed order, alike on all machines.
"""

import math

import numpy as np

from fairway.kernels import njit

POWER_ITERATIONS = 24
FLOOR = 1e-12  # of a node's share: smaller ones are rounding errors of the running sums


@njit(inline="always")
def middle(lo, hi):
    """The first leaf of the right-hand half."""
    return (lo + hi) // 2


def depth(vocabulary_size: int) -> int:
    """Decisions on the longest path; the shortest may have one less."""
    return math.ceil(math.log2(vocabulary_size))


@njit
def odds_between(below_V1, lo, hi):
    """Log-odds of the right half of a node, from running sums (V + 1,) of probabilities in the order of the leaves."""
    half = middle(lo, hi)
    right, left = below_V1[hi] - below_V1[half], below_V1[half] - below_V1[lo]
    return math.log(max(right, FLOOR)) - math.log(max(left, FLOOR))


@njit
def nats_of(odds_D, rank, vocabulary_size):
    """−ln of a leaf's probability, given the log-odds of going right at each node on its path."""
    lo, hi, level, nats = 0, vocabulary_size, 0, 0.0
    while hi - lo > 1:
        half = middle(lo, hi)
        nats += math.log1p(math.exp(-odds_D[level] if rank >= half else odds_D[level]))
        lo, hi = (half, hi) if rank >= half else (lo, half)
        level += 1
    return nats


def path_nats(odds_ND: np.ndarray, ranks_N: np.ndarray, vocabulary_size: int) -> np.ndarray:
    """The same of N paths, float64 (N,)."""
    return np.array([nats_of(odds_D, rank, vocabulary_size) for odds_D, rank in zip(odds_ND, ranks_N, strict=True)])


def leaf_ranks(table_VD: np.ndarray) -> np.ndarray:
    """The place of each token among the leaves, uint16 (V,): the rows' ranges are bisected along their main direction."""
    table = np.ascontiguousarray(table_VD, np.float64)
    leaves = np.arange(len(table))
    ranges = [(0, len(table))]
    for lo, hi in ranges:
        if hi - lo > 2:
            leaves[lo:hi] = leaves[lo:hi][np.argsort(_projections(table, leaves[lo:hi]), kind="stable")]
            ranges += [(lo, middle(lo, hi)), (middle(lo, hi), hi)]
    ranks = np.empty(len(table), np.uint16)
    ranks[leaves] = np.arange(len(table))
    return ranks


@njit
def _projections(table, rows):
    """Of the centred rows on their first principal component, found by power iteration from the longest of them."""
    count, width = len(rows), table.shape[1]
    mean, direction, next_direction = np.zeros(width), np.zeros(width), np.zeros(width)
    values = np.zeros(count)
    for row in rows:
        for k in range(width):
            mean[k] += table[row, k] / count
    longest = -1.0
    for row in rows:
        length = 0.0
        for k in range(width):
            length += (table[row, k] - mean[k]) ** 2
        if length > longest:
            longest = length
            for k in range(width):
                direction[k] = table[row, k] - mean[k]
    for _ in range(POWER_ITERATIONS):
        norm = 0.0
        for k in range(width):
            next_direction[k] = 0.0
        for i in range(count):
            values[i] = 0.0
            for k in range(width):
                values[i] += (table[rows[i], k] - mean[k]) * direction[k]
            for k in range(width):
                next_direction[k] += (table[rows[i], k] - mean[k]) * values[i]
        for k in range(width):
            norm += next_direction[k] ** 2
        for k in range(width):
            direction[k] = next_direction[k] / math.sqrt(norm) if norm > 0 else 0.0
    return values
