"""Step sizes of symmetric grids: five rules for the weight that the largest integer q = 2^(bits−1) − 1 stands for.

Weights beyond q steps are clipped, so choosing a clip is choosing a step. With an entropy coder behind the grid only the
step determines the bytes: a Gaussian row costs h(σ) − log2(step) bits per weight, h(σ) = log2(σ√(2πe)). If q stands for k
standard deviations, step = kσ/q, this is log2(q/k) + log2 √(2πe) ≈ bits − log2 k + 1.05: doubling k saves one bit. The
formula holds to 0.02 bit up to a step of σ/2; a larger step costs ½·log2(1 + step²/12σ²) more, 0.06 bit at a step of σ.
"""

from typing import Literal

import torch
from torch import Tensor

from fairway.quant.grids import SMALLEST_STEP, largest_integer

Rule = Literal["deviation", "maximum", "percentile_row", "percentile_matrix", "mse"]

PERCENTILES = (0.999, 0.9995, 0.9999, 0.99999, 1.0)  # of |w|: GPTQ-lite's candidates (#885, #1185, #549)
FRACTIONS = tuple(i / 50 for i in range(10, 51))  # of the maximum, 0.2…1: candidates of "mse"


def steps(weight_RC: Tensor, rule: Rule, bits: int, deviations: float, per_tensor: bool = False) -> Tensor:
    """Steps float64 (R,) in the units of the weight, not yet rounded to fp16; 0 for a row of zeros.

    "deviation": q steps equal `deviations` times σ, the row's standard deviation about zero (SDClip, #1394); the other rules
    ignore `deviations`. "maximum": q steps equal max |w|, nothing is clipped. The others choose the candidate with the least
    squared rounding error: "percentile_row" among quantiles of |w| per row (#885), "percentile_matrix" one quantile for all
    rows (#1185, #549), "mse" among 41 fractions of the maximum. `per_tensor` treats the matrix as one row: R equal steps.
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


def _quantiles(magnitude_RC: Tensor, shares: tuple[float, ...]) -> Tensor:
    """Quantiles of each row (K, R), interpolated linearly; torch.quantile refuses more than 2^24 elements."""
    ordered_RC = magnitude_RC.sort(dim=1).values
    position_K = magnitude_RC.new_tensor(shares) * (ordered_RC.shape[1] - 1)
    below_K = position_K.floor()
    return torch.lerp(ordered_RC[:, below_K.long()], ordered_RC[:, position_K.ceil().long()], position_K - below_K).T


def _least_error(weight_RC: Tensor, steps_KR: Tensor, bits: int, shared: bool) -> Tensor:
    """Of K candidates per row the one with the least squared rounding error (R,); one candidate for all rows if `shared`."""
    if len(steps_KR) == 1:
        return steps_KR[0]
    limit, errors = largest_integer(bits), []
    for steps_R in steps_KR.clamp(min=SMALLEST_STEP):
        rounded_RC = (weight_RC / steps_R[:, None]).round_().clamp_(-limit, limit).mul_(steps_R[:, None])
        errors.append(rounded_RC.sub_(weight_RC).square_().sum(dim=1))
    error_KR = torch.stack(errors)
    if shared:
        return steps_KR[error_KR.sum(dim=1).argmin()]
    return steps_KR.gather(0, error_KR.argmin(dim=0)[None])[0]
