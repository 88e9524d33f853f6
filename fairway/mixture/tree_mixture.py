"""Logistic mixing along the vocabulary tree, as context-mixing compressors do bit by bit (DESIGN 3.3; node.py has the experts).

A node is a proper binary distribution whatever has been learned, so the products along the paths are a distribution over the
vocabulary by construction; a decoder walks down ten decisions instead of weighing a thousand tokens. Nothing is learned before
the whole token is known, so that nodes may be asked in any order, of any path.
"""

import math

import numpy as np

from fairway.kernels import njit
from fairway.mixture import context_table
from fairway.mixture.config import Ngram
from fairway.mixture.context_table import SUCCESSORS, count_successor
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.node import (
    CAP,
    CONTEXTS,
    LONGEST,
    MATCHED,
    MATCHES,
    MIXERS,
    NEAR,
    PLACES_BITS,
    SIDES,
    SURE,
    WORDS,
    State,
    TreeConfig,
    append,
    backward,
    forward,
    look_up,
    squash,
)
from fairway.mixture.tree import FLOOR, depth, levels_to, middle, nats_of

START = (1.0, 0.5, 0.2, 0.05)  # weights of network, cache, match and unigram in the first layer
CONTEXT_START = 0.05
MATCH_START = 0.6  # probability that a match is right
SLAB = 1 << 16  # tokens between two looks at the sizes of table and text


@njit
def scan(state, text, entries, used, knobs, tokens, paths_ND2, nearest, entropies, nats, orders):
    """Score and then learn each token in turn."""
    odds_D = np.zeros(paths_ND2.shape[1])
    for i in range(len(tokens)):
        look_up(state, text, entries, knobs)
        V, rank = knobs.vocabulary_size, state.ranks_V[tokens[i]]
        levels = levels_to(rank, V)
        forward(state, text, knobs, rank, 0, 0, V, levels, paths_ND2[i], nearest[i], entropies[i], odds_D)
        nats[i], orders[i] = nats_of(odds_D, rank, V), state.now[MATCHED] + 1
        backward(state, text, knobs, rank, odds_D)
        for c in range(knobs.contexts):
            count_successor(entries, used, knobs.most, state.keys_C[c], tokens[i])
        append(state, text, tokens[i])


@njit
def chance_of_right(state, text, knobs, network_V1, cached_V1, lo, hi, level, nearest, entropy):
    """Probability of the right half of a node, from running sums of probabilities in the order of the leaves."""
    given, odds = np.empty((1, 2)), np.empty(1)
    given[0, 0], given[0, 1] = odds_between(network_V1, lo, hi), odds_between(cached_V1, lo, hi)
    forward(state, text, knobs, lo, level, lo, hi, 1, given, nearest, entropy, odds)
    return squash(odds[0])


@njit
def leaves(state, text, knobs, network_V1, cached_V1, nearest, entropy, out):
    """Probabilities of all leaves: a walk over all nodes, with those that are still to do on a stack."""
    todo, mass = np.zeros((2 * len(out), 3), np.int64), np.ones(2 * len(out))
    todo[0, 1], top = knobs.vocabulary_size, 1
    while top:
        top -= 1
        lo, hi, level, here = todo[top, 0], todo[top, 1], todo[top, 2], mass[top]
        if hi - lo == 1:
            out[lo] = here
            continue
        half = middle(lo, hi)
        right = chance_of_right(state, text, knobs, network_V1, cached_V1, lo, hi, level, nearest, entropy)
        todo[top, 0], todo[top, 1], todo[top, 2], mass[top] = lo, half, level + 1, here * (1 - right)
        todo[top + 1, 0], todo[top + 1, 1], todo[top + 1, 2], mass[top + 1] = half, hi, level + 1, here * right
        top += 2


@njit
def odds_between(below_V1, lo, hi):
    """Log-odds of the right half of a node."""
    half = middle(lo, hi)
    right, left = below_V1[hi] - below_V1[half], below_V1[half] - below_V1[lo]
    return math.log(max(right, FLOOR)) - math.log(max(left, FLOOR))


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
    """What the mixture knows after some prefix of a text that begins with BOS.

    `ranks` uint16 (V,) are the places of the tokens among the tree's leaves, `starts` bool (V,) says which begin a word.
    """

    def __init__(self, settings: Ngram, ranks: np.ndarray, starts: np.ndarray, bos: int):
        contexts = WORDS + settings.max_order - 1  # order n looks at n − 1 tokens; order 1 is the node's own history
        V = len(ranks)
        self.knobs = TreeConfig(V, contexts, settings.table_entries, settings.learning_rate, settings.entropy_bins)
        self.depth, self.leaves, self.ranks = depth(V), np.argsort(ranks), ranks
        self.table = context_table.empty()
        self.text = np.zeros(1 << 10, np.uint16)
        self.state = _start(self.knobs, self.depth, ranks.astype(np.int64), starts)
        append(self.state, self.text, bos)

    def score(self, evidence: Features) -> tuple[np.ndarray, np.ndarray]:
        """Nats (float32) and longest order seen before (uint8) of each target; afterwards all of them have been learned."""
        nats, orders = np.empty(len(evidence.tokens), np.float32), np.empty(len(evidence.tokens), np.uint8)
        for start in range(0, len(nats), SLAB):
            piece = slice(start, start + SLAB)
            part = evidence.part(piece)
            self._make_room(len(part.tokens))
            tables = self.state, self.text, self.table.entries, self.table.used, self.knobs
            given = part.tokens.astype(np.int64), part.paths.astype(np.float64), *map(np.float64, (part.nearest, part.entropy))
            scan(*tables, *given, nats[piece], orders[piece])
        return nats, orders

    def prepare(self, outlook: NextTokenInputs) -> None:
        """Look at the next token."""
        look_up(self.state, self.text, self.table.entries, self.knobs)
        network, cached = (np.cumsum(p[self.leaves]) for p in (outlook.neural, outlook.cached))
        self.below = np.concatenate(([0.0], network)), np.concatenate(([0.0], cached))
        self.outlook = outlook

    def right(self, lo: int, hi: int, level: int) -> float:
        """Probability that the token prepared for lies in the right half of a node."""
        nearest, entropy = self.outlook.nearest, self.outlook.entropy
        return chance_of_right(self.state, self.text, self.knobs, *self.below, lo, hi, level, nearest, entropy)

    def observe(self, token: int) -> None:
        """The token prepared for is known: learn it."""
        self._make_room(1)
        path_D2 = np.zeros((self.depth, 2))
        path_between(*self.below, self.state.ranks_V[token], path_D2)
        one, nearest, entropy = np.array([token]), np.array([self.outlook.nearest]), np.array([self.outlook.entropy])
        tables = self.state, self.text, self.table.entries, self.table.used, self.knobs
        scan(*tables, one, path_D2[None], nearest, entropy, np.empty(1, np.float32), np.empty(1, np.uint8))

    def distribution(self) -> np.ndarray:
        """Probabilities (V,) float64 of the token prepared for."""
        out = np.empty(self.knobs.vocabulary_size)
        leaves(self.state, self.text, self.knobs, *self.below, self.outlook.nearest, self.outlook.entropy, out)
        return out[self.state.ranks_V]

    def _make_room(self, coming: int) -> None:
        self.table = context_table.grown(self.table, coming * self.knobs.contexts, self.knobs.most)
        while int(self.state.now[0]) + coming > len(self.text):
            self.text = np.concatenate((self.text, np.zeros_like(self.text)))


def _start(knobs: TreeConfig, D: int, ranks: np.ndarray, starts: np.ndarray) -> State:
    """Nothing seen yet: the mixture begins near to the network with its cache."""
    V, C, width = knobs.vocabulary_size, knobs.contexts, CONTEXTS + knobs.contexts
    counts = np.arange(CAP + 1)
    map_KK = (counts[None, :] + SIDES) / (counts[:, None] + counts[None, :] + 2 * SIDES)
    rows = np.cumsum([0, D * (C - WORDS + 1), MATCHES * NEAR, NEAR * SURE, V])
    return State(
        ranks_V=ranks,
        starts_V=starts,
        last_V=np.full(V, -1),
        place_H=np.full(1 << PLACES_BITS, -1),
        now=np.array([0, -1, 0, 0]),
        word=np.ones(3, np.uint64),
        keys_C=np.zeros(C, np.uint64),
        ranks_CS=np.zeros((C, SUCCESSORS), np.int64),
        counts_CS=np.zeros((C, SUCCESSORS), np.int64),
        unigram_V2=np.zeros((V, 2)),
        map_CKK=np.tile(map_KK, (C, 1, 1)),
        seen_CKK=np.zeros((C, CAP + 1, CAP + 1)),
        match_L2=np.tile((MATCH_START, 0.0), (LONGEST, 1)),
        weight_RI=np.tile((*START, *(CONTEXT_START,) * C), (rows[-1], 1)),
        first_M=rows[:-1],
        final_RM=np.full((D * knobs.entropy_bins, MIXERS), 1 / MIXERS),
        input_DI=np.zeros((D, width)),
        side_DC2=np.zeros((D, C, 2), np.int64),
        row_DM=np.zeros((D, MIXERS), np.int64),
        final_row_D=np.zeros(D, np.int64),
        output_DM=np.zeros((D, MIXERS)),
    )
