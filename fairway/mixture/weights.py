"""Ways to weigh the network against n-gram estimates: p = Σ wᵢ·pᵢ, the network first, no weight depending on the target.

`Linear` learns a weight for the network and for every order by exponentiated gradient (Kivinen & Warmuth 1997), separately
for each class of place: longest order matched × entropy of the network's distribution. The published ways weigh the network
against the longest order matched alone: by a constant (#885), or by the network's entropy (#1185).
Estimates are (N, orders); those beyond the order that is matched have no weight.
"""

import math

import numpy as np

from fairway.kernels import njit
from fairway.mixture.config import Ngram

LEAST = 1e-6  # no expert is ever lost for good
STEEPEST = 50.0  # pᵢ/p that a step is limited to


class Fixed:
    """#885: the network's weight is `ngram.neural_weight`."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        self.settings = settings

    def share(self, entropy: np.ndarray | float) -> np.ndarray | float:
        """Weight of the n-gram estimate, for the entropy of the network's distribution in nats."""
        return 1 - self.settings.neural_weight

    def mix(self, neural: np.ndarray, entropy: np.ndarray, estimates: np.ndarray, matched: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of the targets, given the network's, (N,). Where no order is matched, the network's."""
        longest = estimates[np.arange(len(neural)), matched - 1]
        return np.where(matched > 0, neural + self.share(entropy) * (longest - neural), neural)

    def at(self, neural: np.ndarray, entropy: float, estimates: np.ndarray, matched: int) -> np.ndarray:
        """Probabilities (V,) of all tokens in one place."""
        return neural + self.share(entropy) * (estimates[:, matched - 1] - neural) if matched else neural


class EntropyAdaptive(Fixed):
    """#1185: the less the network knows, the more the n-grams weigh: between 0.08 and 0.73."""

    def share(self, entropy: np.ndarray | float) -> np.ndarray | float:
        return 0.08 + 0.65 / (1 + np.exp(-2 * (entropy - 3.5)))


class Linear:
    """Starts with `ngram.neural_weight` for the network, and the rest in equal shares for the orders."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        orders, bins = settings.max_order, settings.entropy_bins
        self.rate, self.bins, self.bin_width = settings.learning_rate, bins, math.log(vocabulary_size) / bins
        self.weights = np.full((1 + orders, bins, 1 + orders), (1 - settings.neural_weight) / orders)
        self.weights[:, :, 0] = settings.neural_weight
        for matched in range(1 + orders):
            self.weights[matched, :, 1 + matched :] = 0
        self.weights /= self.weights.sum(-1, keepdims=True)

    def mix(self, neural: np.ndarray, entropy: np.ndarray, estimates: np.ndarray, matched: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of the targets, given the network's, (N,). Each is learned from before the next."""
        probabilities = np.empty(len(neural))
        mix_and_learn(self.weights, self._bin(entropy), self.rate, neural, estimates, matched, probabilities)
        return probabilities

    def at(self, neural: np.ndarray, entropy: float, estimates: np.ndarray, matched: int) -> np.ndarray:
        """Probabilities (V,) of all tokens in one place."""
        weights = self.weights[matched, self._bin(entropy)]
        return weights[0] * neural + estimates @ weights[1:]

    def _bin(self, entropy: np.ndarray | float) -> np.ndarray:
        """Bins of equal width up to ln V, the most that an entropy can be."""
        return np.clip(np.int64(entropy / self.bin_width), 0, self.bins - 1)


@njit
def mix_and_learn(weights, bins, rate, neural, estimates, matched, probabilities):
    for i in range(len(neural)):
        row = weights[matched[i], bins[i]]
        p = row[0] * neural[i]
        for k in range(matched[i]):
            p += row[1 + k] * estimates[i, k]
        probabilities[i] = p
        total = 0.0
        for k in range(1 + matched[i]):  # the gradient of ln p is pᵢ/p
            gradient = (estimates[i, k - 1] if k else neural[i]) / p
            row[k] = max(row[k] * math.exp(rate * min(gradient, STEEPEST)), LEAST)
            total += row[k]
        for k in range(1 + matched[i]):
            row[k] /= total
