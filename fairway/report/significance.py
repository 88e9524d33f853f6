"""Is one group of runs better than another by more than a margin? Welch's t-test, one-sided, on scores of several seeds.

The challenge wants a record to be 0.005 nats better at p < 0.01. Its unit is the validation loss in nats per token, and the
margin belongs to the null hypothesis: what is tested is that the gain is at most 0.005, not that it is at most zero.
"""

import math
from dataclasses import dataclass
from statistics import fmean, variance

import mpmath

MARGIN = 0.005  # nats per token
LEVEL = 0.01


@dataclass(frozen=True)
class TTest:
    gain: float  # of the means, in the unit of the scores
    t: float
    freedom: float  # degrees of freedom, by Welch and Satterthwaite; NaN where no score varies
    p: float  # of a gain this far above the margin if there were none


def welch(before: list[float], after: list[float], margin: float = 0.0) -> TTest:
    """Tests whether `after` is lower than `before` by more than `margin`; at least two scores each (Welch, 1947).

    Where neither group varies at all, p is 0 or 1.
    """
    gain = fmean(before) - fmean(after)
    parts = [variance(scores) / len(scores) for scores in (before, after)]
    error = math.sqrt(sum(parts))
    if error == 0:
        better = gain > margin
        return TTest(gain, math.inf if better else -math.inf, math.nan, 0.0 if better else 1.0)
    t = (gain - margin) / error
    weights = [part**2 / (len(scores) - 1) for part, scores in zip(parts, (before, after), strict=True)]
    freedom = sum(parts) ** 2 / sum(weights)
    return TTest(gain, t, freedom, upper_tail(t, freedom))


def upper_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's distribution (Abramowitz and Stegun 26.7.1)."""
    both = float(mpmath.betainc(freedom / 2, 0.5, 0, freedom / (freedom + t * t), regularized=True))
    return both / 2 if t >= 0 else 1 - both / 2
