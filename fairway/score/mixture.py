"""The learned mixture of the network and the n-gram orders: p = Σ wᵢ·pᵢ, its weights learned while scoring.

Weights are kept per context class (longest order matched × entropy of the network's distribution), both known before
the token, and move by exponentiated gradient after it. A mixture of distributions is a distribution, so the
probabilities sum to one by construction. One kernel serves the batched scorer and the step-by-step codec.
"""

import math
from typing import NamedTuple

import numba
import numpy as np

from fairway.score.config import Ngram
from fairway.score.ngram import (
    Table,
    count_token,
    empty_table,
    find_contexts,
    grown,
    order_probabilities,
)


class Working(NamedTuple):
    """Arrays that the kernels share, by order (orders,) or by expert (1 + orders,): the network first."""

    history: np.ndarray  # int64, the latest token first
    fingerprints: np.ndarray  # uint64
    totals: np.ndarray  # int64
    types: np.ndarray  # int64
    experts: np.ndarray  # float64, each expert's probability of one token
    weights: np.ndarray  # float64 (classes, 1 + orders)


class Knobs(NamedTuple):
    vocabulary_size: int
    discount: float
    learning_rate: float
    entropy_bins: int


@numba.njit(cache=True)
def class_of(entropy, matched, knobs):
    """The row of `weights`: matched order × bin of entropy, bins of equal width up to ln(vocabulary)."""
    width = math.log(knobs.vocabulary_size) / knobs.entropy_bins
    return matched * knobs.entropy_bins + min(knobs.entropy_bins - 1, max(0, int(entropy / width)))


@numba.njit(cache=True)
def mixed_probability(pairs, working, knobs, token, neural, matched, row):
    """Probability of one token under the mixture; leaves the experts' probabilities in `working.experts`."""
    working.experts[0] = neural
    order_probabilities(
        pairs,
        token,
        knobs.vocabulary_size,
        knobs.discount,
        working.fingerprints,
        working.totals,
        working.types,
        matched,
        working.experts[1:],
    )
    probability = 0.0
    for expert in range(matched + 1):
        probability += working.weights[row, expert] * working.experts[expert]
    return probability


@numba.njit(cache=True)
def learn_weights(working, knobs, matched, row, probability):
    """Exponentiated gradient of ln p: wᵢ ← wᵢ·exp(η·pᵢ/p), normalised over the experts at hand."""
    total = 0.0
    for expert in range(matched + 1):
        gradient = working.experts[expert] / probability
        grown_weight = working.weights[row, expert] * math.exp(knobs.learning_rate * min(gradient, 50.0))
        working.weights[row, expert] = max(grown_weight, 1e-6)  # no expert is ever lost for good
        total += working.weights[row, expert]
    for expert in range(matched + 1):
        working.weights[row, expert] /= total


@numba.njit(cache=True)
def scan(contexts, pairs, working, knobs, targets, neural_nats, entropies, nats, orders):
    """Score and then learn each target in turn; returns the (possibly grown) tables."""
    for i in range(len(targets)):
        contexts, pairs = grown(contexts), grown(pairs)
        matched = find_contexts(contexts, working.history, working.fingerprints, working.totals, working.types)
        row = class_of(entropies[i], matched, knobs)
        probability = mixed_probability(pairs, working, knobs, targets[i], math.exp(-neural_nats[i]), matched, row)
        nats[i], orders[i] = -math.log(probability), matched
        learn_weights(working, knobs, matched, row, probability)
        count_token(contexts, pairs, targets[i], working.fingerprints, working.history)
    return contexts, pairs


@numba.njit(cache=True)
def distribution(contexts, pairs, working, knobs, neural, entropy, out):
    """The mixture's probability of every token, given the network's probabilities (V,)."""
    matched = find_contexts(contexts, working.history, working.fingerprints, working.totals, working.types)
    row = class_of(entropy, matched, knobs)
    for token in range(len(neural)):
        out[token] = mixed_probability(pairs, working, knobs, token, neural[token], matched, row)


class NgramMixture:
    """The counts and weights after some prefix of a text."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        orders = settings.max_order
        self.knobs = Knobs(vocabulary_size, settings.discount, settings.learning_rate, settings.entropy_bins)
        self.contexts: Table = empty_table()
        self.pairs: Table = empty_table()
        share = (1 - settings.neural_weight) / orders
        weights = np.full(((orders + 1) * settings.entropy_bins, orders + 1), share)
        weights[:, 0] = settings.neural_weight
        for row, matched in enumerate(np.repeat(np.arange(orders + 1), settings.entropy_bins)):
            weights[row] /= weights[row, : matched + 1].sum()
        self.working = Working(
            np.full(orders, -1, np.int64),
            np.zeros(orders, np.uint64),
            np.zeros(orders, np.int64),
            np.zeros(orders, np.int64),
            np.zeros(orders + 1),
            weights,
        )

    def score(self, targets: np.ndarray, neural_nats: np.ndarray, entropy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nats (float32) and longest matched order (uint8) of each target; afterwards all of them have been learned."""
        nats, orders = np.empty(len(targets), np.float32), np.empty(len(targets), np.uint8)
        arrays = (targets.astype(np.int64), neural_nats.astype(np.float64), entropy.astype(np.float64), nats, orders)
        self.contexts, self.pairs = scan(self.contexts, self.pairs, self.working, self.knobs, *arrays)
        return nats, orders

    def distribution(self, neural: np.ndarray, entropy: float) -> np.ndarray:
        """Probabilities (V,) float64 of the next token, given the network's."""
        out = np.empty(len(neural))
        distribution(self.contexts, self.pairs, self.working, self.knobs, neural, float(entropy), out)
        return out
