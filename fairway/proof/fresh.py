"""Does a fresh text cost what the claimed one does? The ratio of two compressed sizes, and how far chance moves it.

Both texts went through the same submission, which may recognise either, so nothing that it says of parts of them is believed:
of each there is one number that it cannot choose, the size of the file that it decoded. How much two honest texts differ is
measured on the texts themselves, with a compressor of the standard library as the reference: its cost of each document says
how hard the document is, and resampling documents (a bootstrap) says how far the mean of so many moves, never taken as less
than if documents differed by SPREAD. What is left of the ratio after division by the reference's own is compared with that.
"""

import bz2
import math
from typing import NamedTuple

import numpy as np

LEVEL = 1e-3  # one-sided: of an honest submission, at most so many are refused
QUANTILE = 3.09  # of the normal distribution at LEVEL
RESAMPLES = 2_000
SPREAD = 0.1  # relative standard deviation of what documents of one kind cost, at least (0.11 among addresses to Congress)
TOLERANCE = 0.05  # of the ratio: what a model gains that adapts to a longer text, and texts of slightly different kinds


class Comparison(NamedTuple):
    ratio: float  # bpb of the claimed text over bpb of the fresh one
    reference: float  # the same of the reference compressor
    error: float  # standard error of the logarithm of either
    documents: tuple[int, int]  # of the claimed and of the fresh text

    @property
    def adjusted(self) -> float:
        return self.ratio / self.reference

    @property
    def interval(self) -> tuple[float, float]:
        """Around the adjusted ratio, at LEVEL on either side."""
        spread = math.exp(QUANTILE * self.error)
        return self.adjusted / spread, self.adjusted * spread

    @property
    def as_expected(self) -> bool:
        """Whether the claimed text may cost what it should, next to the fresh one."""
        return self.interval[1] >= 1 - TOLERANCE


def compare(claimed: bytes, claimed_bpb: float, fresh: bytes, fresh_bpb: float) -> Comparison:
    """The texts, and what they cost the submission."""
    parts = [documents(text) for text in (claimed, fresh)]
    bits, sizes = zip(*map(reference_costs, parts), strict=True)
    means = [float(cost.sum() / size.sum()) for cost, size in zip(bits, sizes, strict=True)]
    errors = [log_error(cost, size) for cost, size in zip(bits, sizes, strict=True)]
    ratio = claimed_bpb / fresh_bpb if fresh_bpb else math.inf
    return Comparison(ratio, means[0] / means[1], math.hypot(*errors), (len(parts[0]), len(parts[1])))


def documents(text: bytes) -> list[bytes]:
    """The parts between NULs that have bytes."""
    return [part for part in text.split(b"\0") if part]


def reference_costs(parts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Bits of each document under the reference, and its bytes, float64 (documents,)."""
    bits = [8.0 * len(bz2.compress(part)) for part in parts]
    return np.array(bits), np.array([len(part) for part in parts], np.float64)


def log_error(bits: np.ndarray, sizes: np.ndarray, resamples: int = RESAMPLES) -> float:
    """Standard error of the logarithm of the mean cost per byte, by a bootstrap over documents seeded by their number; at least
    that of documents that differ by SPREAD, of which those of uneven sizes count as fewer."""
    chosen = np.random.default_rng(len(bits)).integers(0, len(bits), (resamples, len(bits)))
    by_bootstrap = float(np.log(bits[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)).std())
    return max(by_bootstrap, SPREAD * math.sqrt(float((sizes**2).sum())) / float(sizes.sum()))
