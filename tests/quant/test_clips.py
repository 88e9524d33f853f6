"""Clips against their definitions, numpy's quantiles and exhaustive search, and the entropy that results from a clip."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.clips import FRACTIONS, PERCENTILES, steps
from fairway.quant.grids import entropy_bits, quantise, to_half

RULES = ["deviation", "maximum", "percentile_row", "percentile_matrix", "mse"]


def gaussian(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def squared_error(row: np.ndarray, step: float, bits: int) -> float:
    limit = 2 ** (bits - 1) - 1
    return float(((np.clip(np.rint(row / step), -limit, limit) * step - row) ** 2).sum())


def test_deviation_and_maximum_are_what_they_say():
    weight = torch.tensor([[3.0, -3.0, 3.0, -3.0], [0.0, 0.0, 0.0, 0.04]])  # σ about zero: 3 and 0.02
    assert steps(weight, "deviation", 6, 12.0).tolist() == pytest.approx([36 / 31, 0.24 / 31])
    assert steps(weight, "maximum", 4, 12.0).tolist() == pytest.approx([3 / 7, 0.04 / 7])


@pytest.mark.parametrize(("bits", "deviations"), [(4, 3.5), (5, 6.0), (5, 8.0), (6, 12.85), (7, 14.0), (8, 20.0), (8, 60.0)])
def test_entropy_of_gaussian_rows_is_bits_less_log2_k_and_a_constant(bits, deviations):
    weight = gaussian(64, 8192)
    entropy = entropy_bits(quantise(weight, to_half(steps(weight, "deviation", bits, deviations), 10), bits))
    q = 2 ** (bits - 1) - 1
    assert entropy == pytest.approx(math.log2(q / deviations) + math.log2(math.sqrt(2 * math.pi * math.e)), abs=0.02)
    constant = math.log2(math.sqrt(2 * math.pi * math.e)) - 1 + math.log2(q / 2 ** (bits - 1))
    assert entropy == pytest.approx(bits - math.log2(deviations) + constant, abs=0.02)


@pytest.mark.parametrize(("bits", "deviations"), [(3, 4.5), (4, 7.0), (5, 15.0), (5, 25.0), (6, 50.0)])
def test_a_coarse_step_costs_what_the_docstring_says(bits, deviations):
    weight = gaussian(64, 8192)
    entropy = entropy_bits(quantise(weight, to_half(steps(weight, "deviation", bits, deviations), 10), bits))
    step = deviations / (2 ** (bits - 1) - 1)
    fine = math.log2(math.sqrt(2 * math.pi * math.e) / step)
    assert entropy == pytest.approx(fine + math.log2(1 + step**2 / 12) / 2, abs=0.02)


@given(st.integers(2, 8), st.integers(0, 99), st.booleans())
def test_percentiles_are_the_best_of_numpys(bits, seed, heavy):
    weight = gaussian(3, 2000, seed) ** (3 if heavy else 1)
    rows = weight.double().numpy()
    q = 2 ** (bits - 1) - 1
    candidates = np.quantile(np.abs(rows), PERCENTILES, axis=1) / q  # (K, R)
    errors = np.array([[squared_error(row, step, bits) for row, step in zip(rows, line, strict=True)] for line in candidates])
    by_row = candidates[errors.argmin(axis=0), range(3)]
    np.testing.assert_allclose(steps(weight, "percentile_row", bits, 0.0).numpy(), by_row, rtol=1e-12)
    shared = candidates[errors.sum(axis=1).argmin()]
    np.testing.assert_allclose(steps(weight, "percentile_matrix", bits, 0.0).numpy(), shared, rtol=1e-12)


@pytest.mark.parametrize("bits", range(2, 9))
def test_mse_is_the_best_of_its_fractions_and_near_the_best_of_all(bits):
    weight = gaussian(2, 4000, seed=bits)
    found = steps(weight, "mse", bits, 0.0).numpy()
    for row, step in zip(weight.double().numpy(), found, strict=True):
        largest = np.abs(row).max() / (2 ** (bits - 1) - 1)
        coarse = min(squared_error(row, fraction * largest, bits) for fraction in FRACTIONS)
        fine = min(squared_error(row, fraction * largest, bits) for fraction in np.linspace(0.15, 1, 400))
        assert squared_error(row, step, bits) == pytest.approx(coarse, rel=1e-9)
        assert coarse < 1.04 * fine


def test_fractions_span_a_fifth_to_the_whole():
    assert (min(FRACTIONS), max(FRACTIONS)) == (0.2, 1.0)


@pytest.mark.parametrize("rule", RULES)
def test_per_tensor_is_the_rule_on_one_long_row(rule):
    weight = gaussian(6, 500) * torch.arange(1, 7)[:, None]
    found = steps(weight, rule, 5, 6.0, per_tensor=True)
    assert found.shape == (6,) and found.dtype == torch.float64
    assert torch.equal(found, steps(weight.reshape(1, -1), rule, 5, 6.0).repeat(6))


@pytest.mark.parametrize("rule", RULES)
def test_scale_invariance_and_rows_of_zeros(rule):
    weight = gaussian(4, 400)
    weight[1] = 0
    found = steps(weight, rule, 4, 5.0)
    assert found[1] == 0 and (found[[0, 2, 3]] > 0).all()
    assert torch.equal(steps(weight * 0.125, rule, 4, 5.0), found * 0.125)
    assert steps(torch.tensor([[0.5], [-2.0]]), rule, 8, 1.0).tolist() == pytest.approx([0.5 / 127, 2 / 127])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20), st.integers(0, 10))
def test_half_steps_are_the_nearest_with_so_many_bits(values, mantissa_bits):
    exact = torch.tensor(values, dtype=torch.float64)
    rounded = to_half(exact, mantissa_bits)
    halves = torch.arange(1, 0x7C00, dtype=torch.int16).view(torch.float16).double()  # every positive finite fp16
    mantissa, _ = torch.frexp(halves)
    fits = halves[(mantissa * 2 ** (mantissa_bits + 1)) % 1 == 0]
    nearest = (exact[:, None] - fits).abs().amin(dim=1)
    assert rounded.dtype == torch.float16 and rounded.isfinite().all() and (rounded >= 2.0**-24).all()
    assert torch.equal((exact - rounded.double()).abs(), nearest)
    assert torch.equal(to_half(rounded, mantissa_bits), rounded)
    normal = (exact >= 2.0**-14) & (exact <= fits[-1])
    assert ((rounded.double() - exact).abs() <= exact * 2.0 ** -(mantissa_bits + 1))[normal].all()


def test_ten_bits_are_plain_half_precision_and_the_ends_hold():
    values = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).double().square() + 1e-7
    assert torch.equal(to_half(values, 10), values.half())
    assert to_half(torch.tensor([0.0, 1e9]), 10).tolist() == [2.0**-24, 65504.0]


def test_speed():
    weight = gaussian(512, 512)
    seconds = []
    for _ in range(3):
        started = time.process_time()
        steps(weight, "mse", 6, 0.0)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 0.3
