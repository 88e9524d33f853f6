"""The network mixed with what the text so far says: every kind of `ngram.mixture` but `tree`.

`linear`, `fixed` (#885) and `entropy` (#1185) weigh the network against n-gram estimates (weights.py); `tilt` (#1514) favours
one hinted token (tilt.py). Each gives a distribution if its parts are distributions. A token is scored, and then learned
from: its part in the weights at once, its n-grams when `ngram.update_tokens` of them have gathered. Batches and single
tokens run through the same code.
"""

import numpy as np

from fairway.mixture.config import Ngram
from fairway.mixture.estimators import Counts
from fairway.mixture.features import Features
from fairway.mixture.hashed_counts import HashedCounts
from fairway.mixture.tilt import Tilt
from fairway.mixture.weights import EntropyAdaptive, Fixed, Linear

BLOCK = 4096  # tokens whose estimates are held at a time
WEIGHTS = {"linear": Linear, "fixed": Fixed, "entropy": EntropyAdaptive}


class NgramMixture:
    """The mixture after some prefix of a text."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        tilting = settings.mixture == "tilt"
        self.kind = Tilt(settings) if tilting else CountMixture(settings, vocabulary_size)

    def score(self, evidence: Features) -> tuple[np.ndarray, np.ndarray]:
        """Nats (N,) float32 and longest matched orders (N,) uint8 of the targets; afterwards all have been learned."""
        probabilities, orders = self.kind.score(evidence)
        return (-np.log(probabilities)).astype(np.float32), orders.astype(np.uint8)

    def distribution(self, neural: np.ndarray, entropy: float, hint: int = 0, hint_order: int = 0) -> np.ndarray:
        """Probabilities (V,) float64 of the next token, given the network's. Nothing is learned."""
        return self.kind.distribution(np.asarray(neural, np.float64), float(entropy), hint, hint_order)


class CountMixture:
    """n-gram estimates, weighed. `update_tokens` at a time are counted, in the order of the text."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        hashed = settings.estimator == "hashed_ratio"
        self.counts = HashedCounts(settings, vocabulary_size) if hashed else Counts(settings, vocabulary_size)
        self.weights = WEIGHTS[settings.mixture](settings, vocabulary_size)
        self.update_tokens = settings.update_tokens
        self.waiting: list[np.ndarray] = []  # pieces that have been scored and not yet counted
        self.missing = self.update_tokens  # tokens until they are

    def score(self, evidence: Features) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N,) float64 and longest matched orders (N,)."""
        probabilities, orders = np.empty(len(evidence.tokens)), np.empty(len(evidence.tokens), np.int64)
        start = 0
        while start < len(orders):
            piece = slice(start, start + (BLOCK if self.update_tokens == 1 else min(BLOCK, self.missing)))
            estimates, orders[piece] = self._estimates(np.asarray(evidence.tokens[piece], np.int64))
            neural = np.exp(-np.asarray(evidence.nats[piece], np.float64))
            entropy = np.asarray(evidence.entropy[piece], np.float64)
            probabilities[piece] = self.weights.mix(neural, entropy, estimates, orders[piece])
            start = piece.stop
        return probabilities, orders

    def _estimates(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of tokens that do not reach beyond the next update."""
        if self.update_tokens == 1:
            return self.counts.learn(tokens)
        results = self.counts.look(tokens)
        self.waiting.append(tokens)
        self.missing -= len(tokens)
        if self.missing == 0:
            self.counts.learn(np.concatenate(self.waiting))
            self.waiting, self.missing = [], self.update_tokens
        return results

    def distribution(self, neural: np.ndarray, entropy: float, hint: int, hint_order: int) -> np.ndarray:
        estimates, matched = self.counts.of_all_tokens()
        return self.weights.at(neural, entropy, estimates, matched)
