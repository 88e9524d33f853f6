"""Predictors of the codec's contract that cost nothing, of 256 tokens in the order of their numbers."""

import numpy as np

from fairway.mixture.tree import middle


class Uniform:
    """All equally likely."""

    ranks = leaves = np.arange(256)

    def distribution(self) -> np.ndarray:
        return np.full(256, 1 / 256)

    def right(self, lo: int, hi: int, level: int) -> float:
        assert hi - lo == 256 >> level
        return 0.5

    def observe(self, token: int) -> None:
        pass


class Counting(Uniform):
    """Likely as they were frequent so far: whoever forgets between two blocks, or observes otherwise, decodes otherwise."""

    def __init__(self, first: int = 1):
        self.counts = np.full(256, 1)
        self.counts[0] = first

    def distribution(self) -> np.ndarray:
        return self.counts / self.counts.sum()

    def right(self, lo: int, hi: int, level: int) -> float:
        return float(self.counts[middle(lo, hi) : hi].sum() / self.counts[lo:hi].sum())

    def observe(self, token: int) -> None:
        self.counts[token] += 10
