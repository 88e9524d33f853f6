"""Decoder of symmetric grids: how far the largest integer q = 2^(bits−1) − 1 reaches, by five rules.

Whatever lies beyond q steps is clipped, so a clip and a step are the same choice. With an entropy coder behind the grid
the step alone sets the bytes: a Gaussian row costs h(σ) − log2(step) bits a weight, h(σ) = log2(σ√(2πe)). With k deviations
at q, step = kσ/q, this is log2(q/k) + log2 √(2πe) ≈ bits − log2 k + const, const = log2 √(2πe) − 1 = 1.05: doubling k saves
one bit. True to 0.02 bit up to a step of σ/2; a coarser step costs ½·log2(1 + step²/12σ²) more, 0.06 bit at a step of σ.
"""

from typing import Literal

import torch
from torch import Tensor

from fairway.quant.grids import SMALLEST_STEP, largest_integer

Rule = Literal["deviation", "maximum", "percentile_row", "percentile_matrix", "mse"]

PERCENTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)  # of |w|: the candidates of GPTQ-lite (#885, #1185, #549)
FRACTIONS = tuple(i / 50 for i in range(10, 51))  # of the maximum, 0.2…1: the candidates of "mse"


def steps(weight_RC: Tensor, rule: Rule, bits: int, deviations: float, per_tensor: bool = False) -> Tensor:
    """Decoder float64 (R,) in the units of the weight, not yet rounded to fp16; 0 for a row of zeros.

    "deviation": q steps reach `deviations` times σ, the row's deviation about zero (SDClip, #1394); the other rules
    ignore `deviations`. "maximum": they reach max |w|, nothing is clipped. The rest take the candidate with the least
    squared rounding error: "percentile_row" among quantiles of |w| (#885), "percentile_matrix" one quantile for all rows
    (#1185, #549), "mse" among 41 fractions of the maximum. `per_tensor` treats the matrix as one long row: R equal steps.
    """
    if per_tensor:
        return steps(weight_RC.reshape(1, -1), rule, bits, deviations).expand(len(weight_RC))
    weight_RC = weight_RC.double()
    magnitude_RC = weight_RC.abs()
    match rule:
        case "deviation":
            reach_KR = deviations * weight_RC.square().mean(dim=1).sqrt()[None]
        case "maximum":
            reach_KR = magnitude_RC.amax(dim=1)[None]
        case "percentile_row" | "percentile_matrix":
            reach_KR = _quantiles(magnitude_RC, PERCENTILES)
        case "mse":
            reach_KR = weight_RC.new_tensor(FRACTIONS)[:, None] * magnitude_RC.amax(dim=1)
    return _least_error(weight_RC, reach_KR / largest_integer(bits), bits, shared=rule == "percentile_matrix")


def floored(steps_R: Tensor, bits: int) -> Tensor:
    """Decoder of at least 1/q, as the published int5 and int6 code has them: for comparison only.

    The floor binds on every row whose clip is below 1, in practice nearly all: their clip search does nothing, and one
    step serves them all, whatever their scale.
    """
    return steps_R.clamp(min=1 / largest_integer(bits))


def _quantiles(magnitude_RC: Tensor, shares: tuple[float, ...]) -> Tensor:
    """(K, R), linear between neighbours; torch.quantile refuses more than 2^24 elements."""
    ordered_RC = magnitude_RC.sort(dim=1).values
    position_K = magnitude_RC.new_tensor(shares) * (ordered_RC.shape[1] - 1)
    below_K = position_K.floor()
    return torch.lerp(ordered_RC[:, below_K.long()], ordered_RC[:, position_K.ceil().long()], position_K - below_K).T


def _least_error(weight_RC: Tensor, steps_KR: Tensor, bits: int, shared: bool) -> Tensor:
    """Of K candidates a row the one with the least squared rounding error, the same candidate for all rows if `shared`."""
    if len(steps_KR) == 1:
        return steps_KR[0]
    error_KR = torch.stack([_squared_error(weight_RC, steps_R, largest_integer(bits)) for steps_R in steps_KR])
    if shared:
        return steps_KR[error_KR.sum(dim=1).argmin()]
    return steps_KR.gather(0, error_KR.argmin(dim=0)[None])[0]


def _squared_error(weight_RC: Tensor, steps_R: Tensor, limit: int) -> Tensor:
    """Summed over each row (R,)."""
    steps_R1 = steps_R.clamp(min=SMALLEST_STEP)[:, None]
    rounded_RC = (weight_RC / steps_R1).round_().clamp_(-limit, limit).mul_(steps_R1)
    return rounded_RC.sub_(weight_RC).square_().sum(dim=1)
