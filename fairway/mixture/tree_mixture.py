"""Logistic mixing along the vocabulary tree, as context-mixing compressors do bit by bit (DESIGN 3.3; node.py has the experts).

A node is a proper binary distribution whatever has been learned, so the products along the paths are a distribution over the
vocabulary by construction; a decoder walks down ten decisions instead of weighing a thousand tokens. Nothing is learned before
the whole token is known, so that nodes may be asked in any order, of any path.
"""

from typing import NamedTuple

import numpy as np

from fairway.kernels import njit
from fairway.mixture import context_table
from fairway.mixture.config import Ngram
from fairway.mixture.context_table import count_successor
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.node import ORDERS_SEEN, TEXT_LENGTH, append, backward, forward, look_up, squash, start, tree_config
from fairway.mixture.tree import depth, middle, nats_of, odds_between

BLOCK = 1 << 16  # tokens between two looks at the sizes of table and text


class Asked(NamedTuple):
    """What a decoder knows of the next token, and the nodes that it has asked: the last one of each of the D levels.

    `forward` has left what learning needs of these nodes in the state, so that no node on the token's path is computed twice.
    """

    below_2V: np.ndarray  # running sums (2, V + 1) of probabilities in the order of the leaves: network; with the cache
    nearest: float
    entropy: float
    node_D: np.ndarray  # the nodes' middles, −1 for none
    odds_D: np.ndarray
    right_D: np.ndarray  # probabilities of the right half


@njit(inline="always")
def ask(asked, state, text, config, lo, hi, level):
    """The odds of a node, unless it was the last one asked of its level."""
    if asked.node_D[level] != middle(lo, hi):
        given_12 = np.empty((1, 2))
        for k in range(2):
            given_12[0, k] = odds_between(asked.below_2V[k], lo, hi)
        odds_N = asked.odds_D[level:]
        forward(state, text, config, lo, level, lo, hi, 1, given_12, asked.nearest, asked.entropy, odds_N)
        asked.right_D[level], asked.node_D[level] = squash(odds_N[0]), middle(lo, hi)


@njit
def descend(asked, state, text, config, lo, hi, level, rank):
    """Ask a node and those below it on the way to a leaf; for rank −1 always to the likelier side. Returns their product."""
    chance = 1.0
    while hi - lo > 1:
        ask(asked, state, text, config, lo, hi, level)
        half, right = middle(lo, hi), asked.right_D[level]
        goes_right = right > 0.5 if rank < 0 else rank >= half
        chance *= right if goes_right else 1 - right
        lo, hi = (half, hi) if goes_right else (lo, half)
        level += 1
    return chance


@njit
def leaves(asked, state, text, config, out):
    """Probabilities of all leaves, in their order, in which no node is computed twice."""
    root = np.int64(0)  # the literal 0 would compile `descend` once more
    for rank in range(len(out)):
        out[rank] = descend(asked, state, text, config, root, len(out), root, rank)


@njit
def learn(state, text, entries, used, config, token, odds_D):
    """The next token is known, and `forward` has run along its path."""
    backward(state, text, config, state.ranks_V[token], odds_D)
    for c in range(config.contexts):
        count_successor(entries, used, config.table_entries, state.keys_C[c], token)
    append(state, text, token)


@njit
def scan(state, text, entries, used, config, tokens, paths_ND2, nearest, entropies, nats, orders):
    """Score and then learn each token in turn."""
    odds_D = np.zeros(paths_ND2.shape[1])
    for i in range(len(tokens)):
        look_up(state, text, entries, config)
        V, rank = config.vocabulary_size, state.ranks_V[tokens[i]]
        forward(state, text, config, rank, 0, 0, V, len(odds_D), paths_ND2[i], nearest[i], entropies[i], odds_D)
        nats[i], orders[i] = nats_of(odds_D, rank, V), state.cursor[ORDERS_SEEN] + 1
        learn(state, text, entries, used, config, tokens[i], odds_D)


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
            self._make_room(len(part))
            tokens = part["token"].astype(np.int64)
            scan(self.state, self.text, *self.table, self.config, tokens, *columns, nats[block], orders[block])
        return nats, orders

    def prepare(self, inputs: NextTokenInputs) -> None:
        look_up(self.state, self.text, self.table.entries, self.config)
        V, D = self.config.vocabulary_size, depth(self.config.vocabulary_size)
        below_2V = np.zeros((2, V + 1))
        for sums, probabilities in zip(below_2V, (inputs.neural, inputs.cached), strict=True):
            np.cumsum(probabilities[self.leaves], out=sums[1:])
        self.asked = Asked(below_2V, inputs.nearest, inputs.entropy, np.full(D, -1), np.empty(D), np.empty(D))

    def right(self, lo: int, hi: int, level: int) -> float:
        if self.asked.node_D[level] != middle(lo, hi):
            descend(self.asked, self.state, self.text, self.config, lo, hi, level, -1)
        return self.asked.right_D.item(level)

    def distribution(self) -> np.ndarray:
        out = np.empty(self.config.vocabulary_size)
        leaves(self.asked, self.state, self.text, self.config, out)
        return out[self.state.ranks_V]

    def observe(self, token: int) -> None:
        self._make_room(1)
        rank, state = int(self.ranks[token]), (self.state, self.text)
        descend(self.asked, *state, self.config, 0, self.config.vocabulary_size, 0, rank)
        learn(*state, *self.table, self.config, token, self.asked.odds_D)

    def _make_room(self, coming: int) -> None:
        """For so many tokens in the table and in the text."""
        self.table = context_table.grown(self.table, coming * self.config.contexts, self.config.table_entries)
        while int(self.state.cursor[TEXT_LENGTH]) + coming > len(self.text):
            self.text = np.concatenate((self.text, np.zeros_like(self.text)))
