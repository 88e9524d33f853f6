"""Symmetric grids, one per row: integers −q…q with q = 2^(bits−1) − 1, times a step in fp16.

The step is k·σ/q, σ the row's standard deviation (SDClip, #1394). The published int5/int6 code also floors it at 1/q, which
takes effect on nearly every row and disables its clip search; there is no such floor here. In Gaussian rows the integers cost
h(σ) − log2(step) = log2(q·√(2πe)/k) ≈ bits − log2 k + 1.05 bits per weight: doubling k saves one bit.
"""

import torch
from torch import Tensor

SMALLEST_STEP = 2.0**-24  # the least positive fp16: the step of a row of zeros


def largest_integer(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def row_scales(weight_RC: Tensor, bits: int, clip: float) -> Tensor:
    """Steps fp16 (R,) with which the largest integer stands for `clip` standard deviations of the row.

    The deviation is about zero, the centre of the grid, so that constant rows and rows of one column keep their values.
    """
    deviation_R = weight_RC.double().square().mean(dim=1).sqrt()
    return to_half(clip * deviation_R / largest_integer(bits))


def to_half(steps_R: Tensor, mantissa_bits: int = 10) -> Tensor:
    """Steps fp16 (R,), rounded to `mantissa_bits` (0…10) bits after the leading one: fewer bits cost fewer bytes.

    The relative error is at most 2^−(mantissa_bits + 1) down to 2^−14, below which fp16 is subnormal. Results lie between
    the least positive fp16 and the largest value with so many mantissa bits, 65504 for 10.
    """
    largest = (2 - 2.0**-mantissa_bits) * 2.0**15
    steps_R = steps_R.double().clamp(SMALLEST_STEP, largest)
    leading_R = torch.frexp(steps_R).exponent - 1
    spacing_R = torch.ldexp(torch.ones_like(steps_R), (leading_R - mantissa_bits).clamp(min=-24))
    return ((steps_R / spacing_R).round() * spacing_R).half()


def quantise(weight_RC: Tensor, scales_R: Tensor, bits: int) -> Tensor:
    """The nearest integers of the grid, int8 (R, C); ties go to the even one."""
    limit = largest_integer(bits)
    return (weight_RC.double() / scales_R.double()[:, None]).round().clamp(-limit, limit).to(torch.int8)


def dequantise(integers_RC: Tensor, scales_R: Tensor) -> Tensor:
    """Float32 (R, C). An int8 times an fp16 is exact in float32, so every machine computes the same weights."""
    return integers_RC.float() * scales_R.float()[:, None]


def entropy_bits(integers: Tensor) -> float:
    """Order-0 entropy in bits per integer: what an adaptive coder without contexts spends."""
    count = torch.bincount(integers.flatten().int() + 128).double()
    share = count[count > 0] / integers.numel()
    return -(share * share.log2()).sum().item() + 0.0  # + 0.0: a single symbol costs 0, not −0
