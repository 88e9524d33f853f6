"""Mixtures of whole distributions, asked node by node: what TreeMixture is by nature, for the other kinds of `ngram.mixture`.

The tree is that of the token ids. A decoder weighs all tokens before its first decision, and then walks down sums of them.
"""

import numpy as np

from fairway.mixture.config import Ngram
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.node import squash
from fairway.mixture.token_mixture import NgramMixture
from fairway.mixture.tree_mixture import TreeMixture, odds_between


class FlatMixture:
    """An NgramMixture, or the network alone where `ngram.mixture` is none."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        self.mixture = None if settings.mixture == "none" else NgramMixture(settings, vocabulary_size)
        self.ranks = self.leaves = np.arange(vocabulary_size)

    def score(self, evidence: Features) -> tuple[np.ndarray, np.ndarray]:
        """Nats (float32) and longest order seen before (uint8) of each target; afterwards all of them have been learned."""
        if self.mixture is None:
            return evidence.nats.astype(np.float32), np.zeros(len(evidence.tokens), np.uint8)
        return self.mixture.score(evidence)

    def prepare(self, outlook: NextTokenInputs) -> None:
        """Look at the next token."""
        self.outlook, self.probabilities = outlook, outlook.neural
        if self.mixture is not None:
            hint = outlook.hint, outlook.hint_order
            self.probabilities = self.mixture.distribution(outlook.neural, outlook.entropy, *hint)
        self.below = np.concatenate(([0.0], np.cumsum(self.probabilities)))

    def distribution(self) -> np.ndarray:
        """Probabilities (V,) float64 of the token prepared for."""
        return self.probabilities

    def right(self, lo: int, hi: int, level: int) -> float:
        """Probability that the token prepared for lies in the right half of a node."""
        return squash(odds_between(self.below, lo, hi))

    def observe(self, token: int) -> None:
        """The token prepared for is known: learn it."""
        if self.mixture is None:
            return
        neural, hint = self.outlook.neural, self.outlook.hint
        nats, hint_nats = -np.log(neural[[token]]), -np.log(neural[[hint]])
        entropy, orders = np.array([self.outlook.entropy]), np.array([self.outlook.hint_order])
        nothing = np.empty(0)  # the tree's side
        self.mixture.score(Features(np.array([token]), nats, entropy, np.array([hint]), hint_nats, orders, nothing, nothing))


def mixture_of(settings: Ngram, ranks: np.ndarray, starts: np.ndarray, bos: int) -> TreeMixture | FlatMixture:
    """The mixture that `ngram.mixture` names. `ranks` and `starts` (V,): leaves of the tree, and which tokens begin a word."""
    if settings.mixture == "tree":
        return TreeMixture(settings, ranks, starts, bos)
    return FlatMixture(settings, len(ranks))
