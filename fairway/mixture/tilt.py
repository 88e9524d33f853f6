"""The renormalised tilt of #1514: the network's distribution with the odds of one token, the hint, raised by e^β.

p'(v) = p(v)·e^{β[v = h]} / (1 + p(h)·(e^β − 1)), which sums to one whatever β and the hint are: the hint is made from the text
before the token (hints.py). One β for each length of the context behind the hint; all start at `ngram.tilt`, and each follows
the gradient of ln p', which is [v = h] − p'(h). With `ngram.learning_rate` 0 they stay, as published.
"""

import math

import numpy as np

from fairway.kernels import njit
from fairway.mixture.config import Ngram
from fairway.mixture.features import Features
from fairway.mixture.match import LONGEST


class Tilt:
    """β after some prefix of a text."""

    def __init__(self, settings: Ngram):
        self.betas, self.rate = np.full(1 + LONGEST, settings.tilt), settings.learning_rate

    def score(self, evidence: Features) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (N,) of the targets, and the orders behind the hints: their contexts and a token, 0 without a hint."""
        orders = np.asarray(evidence.hint_orders, np.int64)
        neural, hinted = (np.exp(-np.asarray(nats, np.float64)) for nats in (evidence.nats, evidence.hint_nats))
        probabilities = np.empty(len(orders))
        tilt_and_learn(self.betas, self.rate, neural, hinted, evidence.tokens == evidence.hints, orders, probabilities)
        return probabilities, orders + (orders > 0)

    def distribution(self, neural: np.ndarray, entropy: float, hint: int, hint_order: int) -> np.ndarray:
        if hint_order == 0:
            return neural
        odds = math.exp(self.betas[hint_order])
        tilted = neural / (1 + neural[hint] * (odds - 1))
        tilted[hint] *= odds
        return tilted


@njit
def tilt_and_learn(betas, rate, neural, hinted, right, orders, probabilities):
    for i in range(len(neural)):
        probabilities[i] = neural[i]
        if orders[i]:
            odds = math.exp(betas[orders[i]])
            total = 1 + hinted[i] * (odds - 1)
            probabilities[i] *= (odds if right[i] else 1.0) / total
            betas[orders[i]] += rate * ((1.0 if right[i] else 0.0) - hinted[i] * odds / total)
