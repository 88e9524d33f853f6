"""The n-gram cache of #885 as it was published: counts in hashed buckets, and a ratio that is not a distribution.

Contexts, and contexts with the target, are hashed into separate buckets that many of them share. So the ratio of the two
counts grows with the load of the buckets for every token alike: over the vocabulary the ratios sum to far more than one, and a
text of random tokens seems to cost fewer bits the longer it gets. It is kept for comparison; the certificate refuses it and
names the sum that it measures.
"""

import numpy as np

from fairway.kernels import njit
from fairway.mixture.config import Ngram

BUCKETS = 1 << 22  # of each order, for contexts and again for whole n-grams
SEEN_BEFORE = 2  # occurrences of a context that make its order count
PRIMES = np.array([36313, 27191, 51593, 73721, 96017, 11587, 29123])


class HashedCounts:
    """The counts of orders 2 to max_order; order 1 is uniform. `look`, `learn`, `of_all_tokens` are as in estimators.Counts."""

    def __init__(self, settings: Ngram, vocabulary_size: int, buckets: int = BUCKETS):
        self.vocabulary_size = vocabulary_size
        self.counts = np.zeros((settings.max_order - 1, 2, buckets), np.int32)  # of a context, of a whole n-gram
        self.counted = np.full(settings.max_order, -1)  # the latest token first; −1 before the text
        self.read = self.counted.copy()

    def look(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self._walk(self.read, tokens, False)

    def learn(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        results = self._walk(self.counted, tokens, True)
        self.read[:] = self.counted
        return results

    def of_all_tokens(self) -> tuple[np.ndarray, int]:
        estimates = np.empty((self.vocabulary_size, len(self.read)))
        return estimates, estimate_all(self.counts, self.read, 1 / self.vocabulary_size, estimates)

    def _walk(self, latest: np.ndarray, tokens: np.ndarray, counting: bool) -> tuple[np.ndarray, np.ndarray]:
        estimates, matched = np.empty((len(tokens), len(latest))), np.empty(len(tokens), np.int64)
        walk(self.counts, latest, tokens, counting, 1 / self.vocabulary_size, estimates, matched)
        return estimates, matched


@njit
def walk(counts, latest, tokens, counting, uniform, estimates, matched):
    for i in range(len(tokens)):
        matched[i] = ratios(counts, latest, tokens[i], uniform, estimates[i])
        if counting:
            count(counts, latest, tokens[i])
        for k in range(len(latest) - 1, 0, -1):
            latest[k] = latest[k - 1]
        latest[0] = tokens[i]


@njit
def estimate_all(counts, latest, uniform, estimates):
    matched = 0
    for token in range(len(estimates)):
        matched = ratios(counts, latest, token, uniform, estimates[token])
    return matched


@njit
def buckets_of(counts, latest, length, token):
    """Of a context of `length` tokens, and of the n-gram that `token` makes of it; −1 where the text is too short."""
    if latest[length - 1] < 0:
        return -1, -1
    code = 0
    for k in range(length):
        code ^= PRIMES[k % len(PRIMES)] * latest[length - 1 - k]  # the oldest token first
    full = code ^ PRIMES[length % len(PRIMES)] * token
    return code % counts.shape[2], full % counts.shape[2]


@njit
def ratios(counts, latest, token, uniform, out):
    """min(1, n-gram / context) of orders 2, 3, … into `out`; returns the longest whose context has been seen before."""
    matched = 0
    out[0] = uniform
    for length in range(1, len(latest)):
        context, full = buckets_of(counts, latest, length, token)
        seen = counts[length - 1, 0, context] if context >= 0 else 0
        out[length] = min(1.0, counts[length - 1, 1, full] / seen) if seen else 0.0
        if seen >= SEEN_BEFORE:
            matched = length + 1
    return matched


@njit
def count(counts, latest, token):
    for length in range(1, len(latest)):
        context, full = buckets_of(counts, latest, length, token)
        if context >= 0:
            counts[length - 1, 0, context] += 1
            counts[length - 1, 1, full] += 1
