"""Logistic mixing along the vocabulary tree, as context-mixing compressors do bit by bit (DESIGN 3.3; node.py has the experts).

A node is a proper binary distribution whatever has been learned, so the products along the paths are a distribution over the
vocabulary by construction; a decoder walks down ten decisions instead of weighing a thousand tokens. Nothing is learned before
the whole token is known, so that nodes may be asked in any order, of any path.
"""

import numpy as np

from fairway.kernels import njit
from fairway.mixture import context_table
from fairway.mixture.config import Ngram
from fairway.mixture.context_table import count_successor
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.node import ORDERS_SEEN, TEXT_LENGTH, append, backward, forward, look_up, squash, start, tree_config
from fairway.mixture.tree import depth, middle, nats_of, odds_between

BLOCK = 1 << 16  # tokens between two looks at the sizes of table and text


@njit
def scan(state, text, entries, used, config, tokens, paths_ND2, nearest, entropies, nats, orders):
    """Score and then learn each token in turn."""
    odds_D = np.zeros(paths_ND2.shape[1])
    for i in range(len(tokens)):
        look_up(state, text, entries, config)
        V, rank = config.vocabulary_size, state.ranks_V[tokens[i]]
        forward(state, text, config, rank, 0, 0, V, len(odds_D), paths_ND2[i], nearest[i], entropies[i], odds_D)
        nats[i], orders[i] = nats_of(odds_D, rank, V), state.cursor[ORDERS_SEEN] + 1
        backward(state, text, config, rank, odds_D)
        for c in range(config.contexts):
            count_successor(entries, used, config.table_entries, state.keys_C[c], tokens[i])
        append(state, text, tokens[i])


@njit
def chance_of_right(state, text, config, network_V1, cached_V1, lo, hi, level, nearest, entropy):
    """Probability of the right half of a node, from running sums of probabilities in the order of the leaves."""
    given, odds = np.empty((1, 2)), np.empty(1)
    given[0, 0], given[0, 1] = odds_between(network_V1, lo, hi), odds_between(cached_V1, lo, hi)
    forward(state, text, config, lo, level, lo, hi, 1, given, nearest, entropy, odds)
    return squash(odds[0])


@njit
def path_between(network_V1, cached_V1, rank, path_D2):
    """The log-odds at the nodes on the path to a leaf."""
    lo, hi, level = 0, len(network_V1) - 1, 0
    while hi - lo > 1:
        path_D2[level, 0], path_D2[level, 1] = odds_between(network_V1, lo, hi), odds_between(cached_V1, lo, hi)
        half = middle(lo, hi)
        lo, hi = (half, hi) if rank >= half else (lo, half)
        level += 1


def word_starts(pieces: list[bytes]) -> np.ndarray:
    """Which tokens begin a word, bool (V,): those with a space, a line end or the start of a document in front."""
    return np.array([piece[:1] in (b" ", b"\n", b"\0") for piece in pieces])


class TreeMixture:
    """See protocol.Mixture and protocol.mixture_of."""

    def __init__(self, settings: Ngram, ranks: np.ndarray, starts: np.ndarray, bos: int):
        self.config = tree_config(settings, len(ranks))
        self.leaves, self.ranks = np.argsort(ranks), ranks
        self.table = context_table.empty()
        self.text = np.zeros(1 << 10, np.uint16)
        self.state = start(self.config, ranks.astype(np.int64), starts)
        append(self.state, self.text, bos)

    def score(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        nats, orders = np.empty(len(features), np.float32), np.empty(len(features), np.uint8)
        for first in range(0, len(features), BLOCK):
            block = slice(first, first + BLOCK)
            part = features[block]
            columns = (part[name].astype(np.float64) for name in ("paths", "nearest", "entropy"))
            self._scan(part["token"].astype(np.int64), *columns, nats[block], orders[block])
        return nats, orders

    def prepare(self, inputs: NextTokenInputs) -> None:
        look_up(self.state, self.text, self.table.entries, self.config)
        network, cached = (np.cumsum(p[self.leaves]) for p in (inputs.neural, inputs.cached))
        self.below = np.concatenate(([0.0], network)), np.concatenate(([0.0], cached))
        self.nearest, self.entropy = inputs.nearest, inputs.entropy

    def right(self, lo: int, hi: int, level: int) -> float:
        node = lo, hi, level
        return chance_of_right(self.state, self.text, self.config, *self.below, *node, self.nearest, self.entropy)

    def distribution(self) -> np.ndarray:
        nodes, chance_V = [(0, len(self.ranks), 0)], np.ones(len(self.ranks))
        for lo, hi, level in nodes:
            if hi - lo > 1:
                half, right = middle(lo, hi), self.right(lo, hi, level)
                chance_V[lo:half] *= 1 - right
                chance_V[half:hi] *= right
                nodes += [(lo, half, level + 1), (half, hi, level + 1)]
        return chance_V[self.ranks]

    def observe(self, token: int) -> None:
        path_D2 = np.zeros((depth(self.config.vocabulary_size), 2))
        path_between(*self.below, self.state.ranks_V[token], path_D2)
        one = np.array([token]), path_D2[None], np.array([self.nearest]), np.array([self.entropy])
        self._scan(*one, np.empty(1, np.float32), np.empty(1, np.uint8))

    def _scan(self, tokens: np.ndarray, *columns: np.ndarray) -> None:
        """Run `scan` on the next tokens, once there is room for them in the table and in the text."""
        coming = len(tokens)
        self.table = context_table.grown(self.table, coming * self.config.contexts, self.config.table_entries)
        while int(self.state.cursor[TEXT_LENGTH]) + coming > len(self.text):
            self.text = np.concatenate((self.text, np.zeros_like(self.text)))
        scan(self.state, self.text, self.table.entries, self.table.used, self.config, tokens, *columns)
