"""The network mixed with estimates of whole tokens (estimators.py) by weights (weights.py): all of `ngram.mixture` but `tree`.

The result is a distribution if the parts are. A token is scored first and then learned from: by the weights at once, by the
estimator when it chooses.
"""

import numpy as np

from fairway.mixture.config import Ngram
from fairway.mixture.estimators import estimator_of
from fairway.mixture.features import Features, NextTokenInputs
from fairway.mixture.node import squash
from fairway.mixture.tree import odds_between
from fairway.mixture.weights import WEIGHTS

BLOCK = 4096  # tokens whose estimates are held at a time


class TokenMixture:
    """See protocol.Mixture. A decoder's tree is that of the token ids: it weighs all tokens before its first decision."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        self.estimator = estimator_of(settings, vocabulary_size)
        self.weights = WEIGHTS[settings.mixture](settings, vocabulary_size)
        self.ranks = self.leaves = np.arange(vocabulary_size)

    def score(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        nats, orders = np.empty(len(features), np.float32), np.empty(len(features), np.uint8)
        for start in range(0, len(features), BLOCK):
            block = slice(start, start + BLOCK)
            part = features[block]
            estimates, orders_N = self.estimator.of_targets(part)
            neural_N, entropy_N = np.exp(-part["nats"].astype(np.float64)), part["entropy"].astype(np.float64)
            nats[block] = -np.log(self.weights.mix_targets(neural_N, entropy_N, estimates, orders_N))
            orders[block] = orders_N
        return nats, orders

    def prepare(self, inputs: NextTokenInputs) -> None:
        self.inputs = inputs
        self.estimates, self.order = self.estimator.of_all_tokens(inputs.neural)
        self.probabilities = self.weights.mix_all_tokens(inputs.neural, inputs.entropy, self.estimates, self.order)
        self.below = np.concatenate(([0.0], np.cumsum(self.probabilities)))

    def distribution(self) -> np.ndarray:
        return self.probabilities

    def right(self, lo: int, hi: int, level: int) -> float:
        return squash(odds_between(self.below, lo, hi))

    def observe(self, token: int) -> None:
        neural, entropy, order = self.inputs.neural[[token]], np.array([self.inputs.entropy]), np.array([self.order])
        self.weights.mix_targets(neural, entropy, self.estimates[[token]], order)  # learns from the token
        self.estimator.observe(token)
