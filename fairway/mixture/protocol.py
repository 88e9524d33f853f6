"""What every mixture can do, and the choice between them. A mixture turns what the network says into the final probabilities.

Evaluation scores many known targets at once (`score`). A decoder takes one token at a time: `prepare`, then `right` down the
tree of the vocabulary, or `distribution`, and `observe` once the token is known. Both give the same numbers.
"""

from typing import Protocol

import numpy as np

from fairway.mixture.config import Ngram
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.token_mixture import TokenMixture
from fairway.mixture.tree_mixture import TreeMixture


class Mixture(Protocol):
    """The state of a mixture after some prefix of a text that begins with BOS."""

    ranks: np.ndarray  # (V,), place of each token among the leaves of the mixture's tree
    leaves: np.ndarray  # (V,), the tokens in the order of the leaves

    def score(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Nats (N,) float32 and longest n-gram order whose context was seen before (N,) uint8, one per target.

        Each target is scored, and then learned from, before the next one.
        """

    def prepare(self, inputs: NextTokenInputs) -> None:
        """Take in what the network says about the next token."""

    def right(self, lo: int, hi: int, level: int) -> float:
        """Probability that the next token lies in the right half of the node lo ≤ rank < hi, given that it is in the node.

        `level` is the number of decisions above the node.
        """

    def distribution(self) -> np.ndarray:
        """Probabilities of the next token, float64 (V,)."""

    def observe(self, token: int) -> None:
        """The next token is known: learn from it."""


def mixture_of(settings: Ngram, ranks: np.ndarray, starts: np.ndarray, bos: int) -> Mixture:
    """The mixture that `ngram.mixture` names, before any text.

    `ranks` (V,) are the places of the tokens among the leaves of the network's tree, `starts` bool (V,) says which tokens
    begin a word.
    """
    if settings.mixture == "tree":
        return TreeMixture(settings, ranks, starts, bos)
    return TokenMixture(settings, len(ranks))
