"""Ways to bring the network and an estimator together; no weight depends on the target.

`Linear` learns a weight for the network and for every order by exponentiated gradient (Kivinen & Warmuth 1997), separately
for each class of position: longest order matched × entropy of the network's distribution. The published ways weigh the
network against the longest matched order alone: by a constant (#885), or by the network's entropy (#1185). `Tilt` raises the
odds of the match token (#1514). Estimates are (N, columns), see estimators.py; where the order is 0 the network stands alone.
"""

import math
from typing import Protocol

import numpy as np

from fairway.kernels import njit
from fairway.mixture.config import Ngram
from fairway.mixture.match import LONGEST

MIN_WEIGHT = 1e-6  # no expert is ever lost for good
MAX_GRADIENT = 50.0  # pᵢ/p that a step is limited to


class Weights(Protocol):
    """The weights after some prefix of a text."""

    def mix_targets(self, neural: np.ndarray, entropy: np.ndarray, estimates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        """Probabilities (N,) of targets, given the network's, (N,). Each is learned from before the next."""

    def mix_all_tokens(self, neural: np.ndarray, entropy: float, estimates: np.ndarray, order: int) -> np.ndarray:
        """Probabilities (V,) of all tokens at one position, given the network's, (V,)."""


class Fixed:
    """#885: the network's weight is `ngram.neural_weight`."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        self.settings = settings

    def share(self, entropy: np.ndarray | float) -> np.ndarray | float:
        """Weight of the n-gram estimate, for the entropy of the network's distribution in nats."""
        return 1 - self.settings.neural_weight

    def mix_targets(self, neural: np.ndarray, entropy: np.ndarray, estimates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        longest = estimates[np.arange(len(neural)), orders - 1]
        return np.where(orders > 0, neural + self.share(entropy) * (longest - neural), neural)

    def mix_all_tokens(self, neural: np.ndarray, entropy: float, estimates: np.ndarray, order: int) -> np.ndarray:
        return neural + self.share(entropy) * (estimates[:, order - 1] - neural) if order else neural


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
        for order in range(1 + orders):
            self.weights[order, :, 1 + order :] = 0
        self.weights /= self.weights.sum(-1, keepdims=True)

    def mix_targets(self, neural: np.ndarray, entropy: np.ndarray, estimates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        probabilities = np.empty(len(neural))
        mix_and_learn(self.weights, self._bin(entropy), self.rate, neural, estimates, orders, probabilities)
        return probabilities

    def mix_all_tokens(self, neural: np.ndarray, entropy: float, estimates: np.ndarray, order: int) -> np.ndarray:
        weights = self.weights[order, self._bin(entropy)]
        return weights[0] * neural + estimates @ weights[1:]

    def _bin(self, entropy: np.ndarray | float) -> np.ndarray:
        """Bins of equal width up to ln V, the most that an entropy can be."""
        return np.clip(np.int64(entropy / self.bin_width), 0, self.bins - 1)


class Tilt:
    """#1514: the network's distribution with the odds of one token, the match token m, raised by e^β and normalized again.

    p'(v) = p(v)·e^{β[v = m]} / (1 + p(m)·(e^β − 1)), which sums to one whatever β and m are. There is one β per order of the
    match; all start at `ngram.tilt`, and each follows the gradient of ln p', which is [v = m] − p'(m). With
    `ngram.learning_rate` 0 they stay, as published. The estimates are p(m) and [v = m] (match.MatchModel).
    """

    def __init__(self, settings: Ngram, vocabulary_size: int):
        self.betas, self.rate = np.full(2 + LONGEST, settings.tilt), settings.learning_rate

    def mix_targets(self, neural: np.ndarray, entropy: np.ndarray, estimates: np.ndarray, orders: np.ndarray) -> np.ndarray:
        probabilities = np.empty(len(neural))
        tilt_and_learn(self.betas, self.rate, neural, estimates, orders, probabilities)
        return probabilities

    def mix_all_tokens(self, neural: np.ndarray, entropy: float, estimates: np.ndarray, order: int) -> np.ndarray:
        if order == 0:
            return neural
        odds, (match, hit) = math.exp(self.betas[order]), estimates.T
        return neural / (1 + match * (odds - 1)) * np.where(hit, odds, 1.0)


WEIGHTS: dict[str, type[Weights]] = {  # by `ngram.mixture`; with none, no order is ever matched
    "linear": Linear,
    "fixed": Fixed,
    "entropy": EntropyAdaptive,
    "tilt": Tilt,
    "none": Fixed,
}


@njit
def mix_and_learn(weights, bins, rate, neural, estimates, orders, probabilities):
    for i in range(len(neural)):
        row = weights[orders[i], bins[i]]
        p = row[0] * neural[i]
        for k in range(orders[i]):
            p += row[1 + k] * estimates[i, k]
        probabilities[i] = p
        total = 0.0
        for k in range(1 + orders[i]):  # the gradient of ln p is pᵢ/p
            gradient = (estimates[i, k - 1] if k else neural[i]) / p
            row[k] = max(row[k] * math.exp(rate * min(gradient, MAX_GRADIENT)), MIN_WEIGHT)
            total += row[k]
        for k in range(1 + orders[i]):
            row[k] /= total


@njit
def tilt_and_learn(betas, rate, neural, estimates, orders, probabilities):
    for i in range(len(neural)):
        probabilities[i] = neural[i]
        if orders[i]:
            odds, match, hit = math.exp(betas[orders[i]]), estimates[i, 0], estimates[i, 1]
            total = 1 + match * (odds - 1)
            probabilities[i] *= (odds if hit else 1.0) / total
            betas[orders[i]] += rate * (hit - match * odds / total)
