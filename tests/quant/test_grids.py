"""Grids: steps, rounding, and the entropy that results from bits and clip."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.clips import steps
from fairway.quant.grids import dequantise, entropy_bits, quantise, to_half


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def test_step_is_clip_deviations_over_the_largest_integer_and_has_no_floor():
    weight = torch.tensor([[3.0, -3.0], [0.003, -0.003]])  # σ = 3 and 0.003
    scales = to_half(steps(weight, "deviation", 6, 10.0))
    assert scales.dtype == torch.float16
    assert scales.tolist() == torch.tensor([30 / 31, 0.03 / 31]).half().tolist()


def test_integers_round_to_nearest_and_clip_at_the_largest():
    weight = torch.tensor([[0.0, 0.24, 0.26, -0.26, 1.6, 100.0, -100.0]])
    integers = quantise(weight, torch.tensor([0.5]).half(), bits=4)
    assert integers.dtype == torch.int8
    assert integers.tolist() == [[0, 0, 1, -1, 3, 7, -7]]


def test_scales_are_used_as_rounded_to_half_precision():
    scales = to_half(steps(gaussian(16, 64), "deviation", 8, 20.0))
    integers = torch.arange(-127, 128, dtype=torch.int8).repeat(16, 1)
    exact = integers.double() * scales.double()[:, None]
    assert torch.equal(dequantise(integers, scales).double(), exact)
    assert torch.equal(quantise(exact, scales, bits=8), integers)


def test_rows_of_zeros_and_single_columns_survive():
    zeros = torch.zeros(2, 5)
    assert quantise(zeros, to_half(steps(zeros, "deviation", 6, 12.85)), 6).abs().max() == 0
    column = torch.tensor([[0.5], [-2.0]])
    scales = to_half(steps(column, "deviation", 8, 1.0))
    assert torch.allclose(dequantise(quantise(column, scales, 8), scales), column, rtol=1e-3)


@given(st.integers(2, 8), st.floats(3, 40), st.integers(0, 99))
def test_error_of_an_unclipped_weight_is_half_a_step(bits, clip, seed):
    weight = gaussian(4, 32, seed)
    scales = to_half(steps(weight, "deviation", bits, clip))
    reach = scales.float()[:, None] * (2 ** (bits - 1) - 0.5)
    error = (dequantise(quantise(weight, scales, bits), scales) - weight).abs()
    assert (error <= scales.float()[:, None] * 0.5001)[weight.abs() <= reach].all()


@pytest.mark.parametrize(("bits", "clip"), [(5, 6.0), (6, 12.85), (7, 12.85), (8, 20.0), (8, 10.0)])
def test_gaussian_entropy_follows_bits_and_clip(bits, clip):
    weight = gaussian(64, 4096)
    entropy = entropy_bits(quantise(weight, to_half(steps(weight, "deviation", bits, clip)), bits))
    expected = math.log2((2 ** (bits - 1) - 1) / clip * math.sqrt(2 * math.pi * math.e))
    assert entropy == pytest.approx(expected, abs=0.02)
    assert entropy == pytest.approx(bits - math.log2(clip) + 1.05, abs=0.1)


def test_entropy_counts_symbols():
    assert entropy_bits(torch.tensor([[3, 3, 3]], dtype=torch.int8)) == 0
    assert entropy_bits(torch.tensor([[-127, 127], [0, 1]], dtype=torch.int8)) == 2
