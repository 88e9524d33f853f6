"""Is one group of runs better than another by more than a margin? Welch's t-test, one-sided, on scores of several seeds.

The challenge wants a record to be 0.005 nats better at p < 0.01. Its unit is the validation loss in nats per token, and the
margin belongs to the null hypothesis: what is tested is that the gain is at most 0.005, not that it is at most zero.
Student's distribution is written out, because the standard library has none and scipy would be there for one line.
"""

import math
from dataclasses import dataclass
from statistics import fmean, variance

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
    """P(T > t) of Student's distribution (DLMF 8.17; Abramowitz and Stegun 26.7.1)."""
    square = t * t
    both = incomplete_beta(freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square))
    return both / 2 if t >= 0 else 1 - both / 2


def incomplete_beta(a: float, b: float, x: float, complement: float) -> float:
    """The regularized incomplete beta function I_x(a, b); `complement` is 1 − x, given because it may be tiny."""
    if x <= 0 or complement <= 0:
        return float(x > 0)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly
        return 1 - incomplete_beta(b, a, complement, x)
    power = a * math.log(x) + b * math.log(complement)
    front = math.exp(power + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / a
    return front / continued_fraction(a, b, x)


def continued_fraction(a: float, b: float, x: float) -> float:
    """The denominator 1 + d₁/(1 + d₂/(1 + …)) of DLMF 8.17.22, from the inside out, with enough terms for a float64."""
    value = 1.0
    for term in range(200 + int(4 * math.sqrt(a + b)), 0, -1):
        m = term // 2
        if term % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        value = 1 + d / value
    return value
