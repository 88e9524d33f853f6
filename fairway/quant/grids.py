"""Symmetric grids, one per row: integers −q…q with q = 2^(bits−1) − 1, times a step in fp16 (clips.py chooses it)."""

import torch
from torch import Tensor

SMALLEST_STEP = 2.0**-24  # the least positive fp16: the step of a row of zeros


def largest_integer(bits: int) -> int:
    return 2 ** (bits - 1) - 1


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


def shortened(values: Tensor, mantissa_bits: int) -> Tensor:
    """Fp16, rounded to the nearest value with so many bits after the leading one; subnormal results are rounded twice."""
    mantissa, exponent = torch.frexp(values.double())  # mantissa 0.5…1
    return torch.ldexp((mantissa * 2.0 ** (mantissa_bits + 1)).round() / 2.0 ** (mantissa_bits + 1), exponent).half()


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
