"""Symmetric grids, one a row: integers −q…q with q = 2^(bits−1) − 1, times a step in fp16.

The step is k·σ/q, σ the row's standard deviation (SDClip, #1394). The published int5/int6 code also floors it at 1/q,
which binds on nearly every row and makes its clip search do nothing; there is no such floor here. For Gaussian rows
the integers cost h(σ) − log2(step) = log2(q·√(2πe)/k) ≈ bits − log2 k + 1.05 bits a weight: doubling k saves one bit.
"""

import torch
from torch import Tensor

SMALLEST_STEP = 2.0**-24  # the least positive fp16: what a row of zeros gets


def largest_integer(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def row_scales(weight_RC: Tensor, bits: int, clip: float) -> Tensor:
    """Steps (R,) in fp16, to be used as rounded: `clip` standard deviations reach the largest integer.

    σ is taken about zero, the centre of the grid, so that a constant row, or one of a single column, keeps its values.
    """
    deviation_R = weight_RC.double().square().mean(dim=1).sqrt()
    return (clip * deviation_R / largest_integer(bits)).clamp(min=SMALLEST_STEP).half()


def quantise(weight_RC: Tensor, scales_R: Tensor, bits: int) -> Tensor:
    """The nearest integers of the grid, int8 (R, C); halves go to the even one."""
    limit = largest_integer(bits)
    return (weight_RC.double() / scales_R.double()[:, None]).round().clamp(-limit, limit).to(torch.int8)


def dequantise(integers_RC: Tensor, scales_R: Tensor) -> Tensor:
    """Float32 (R, C). An int8 times an fp16 fits into float32 exactly, so every machine gets the same weights."""
    return integers_RC.float() * scales_R.float()[:, None]


def entropy_bits(integers: Tensor) -> float:
    """Order-0 entropy, bits an integer: what an adaptive coder without context spends."""
    count = torch.bincount(integers.flatten().int() + 128).double()
    share = count[count > 0] / integers.numel()
    return -(share * share.log2()).sum().item() + 0.0  # + 0.0: a single symbol costs 0, not −0
