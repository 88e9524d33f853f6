"""Rounding a column against exhaustive search: all integers of a plain grid, all paths of a trellis."""

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.quant.gptq import PRICE, Grid, nearest
from fairway.quant.rounding import LIMIT, WIDTHS, gaussian_bits, round_block, width_classes
from fairway.quant.trellis import NEXT_STATE, steps_of

REACH = 3  # of exhaustive search
ONE = np.float16(1)


def in_steps(weight_RC: np.ndarray, grid: Grid, kept_RC: np.ndarray | None = None) -> np.ndarray:
    """The integers of weights given in steps."""
    return nearest(weight_RC, np.full(len(weight_RC), ONE), grid, kept_RC)


def classes(weight_RC: np.ndarray) -> np.ndarray:
    return width_classes(np.sqrt((weight_RC**2).mean(axis=1)))


def grids_of(integers_RN: np.ndarray, states: int) -> np.ndarray:
    """The grid, 0 or 1, of each integer of a path (R, N)."""
    state_N, grid_RN = np.zeros(integers_RN.shape[1], np.uint8), np.zeros(integers_RN.shape, np.uint8)
    for row, integers_N in enumerate(integers_RN):
        grid_RN[row] = state_N & 1
        state_N = NEXT_STATE[states][state_N, integers_N & 1]
    return grid_RN


@cache
def paths(states: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every column of integers within ±REACH (R, N), its values in steps, and their grids."""
    integers_RN = np.array(list(itertools.product(range(-REACH, REACH + 1), repeat=rows)), np.int8).T
    return integers_RN, steps_of(integers_RN, states), grids_of(integers_RN, states)


def test_width_classes_are_quarters_of_an_octave():
    width = np.array([0.0, 2.0**-4, 2.0**-4.2, 0.99, 1.0, 1.1, 2.0**0.25, 255.0, 256.0, 1e6])
    nearest_class = np.abs(np.log2(np.maximum(width, 1e-9))[:, None] - np.log2(WIDTHS)).argmin(axis=1)
    np.testing.assert_array_equal(width_classes(width), nearest_class)
    assert WIDTHS[width_classes(width)].tolist() == [*(3 * [1 / 16]), 1, 1, 2**0.25, 2**0.25, 256, 256, 256]


@pytest.mark.parametrize("states", [0, 4, 8])
def test_code_lengths_are_those_of_a_distribution(states):
    """2^−bits sums to one over zero and both signs of the rest; the limit of 40 bits may add a little."""
    mass_KGL = 2.0 ** -gaussian_bits(states)
    total_KG = mass_KGL[:, :, 0] + 2 * mass_KGL[:, :, 1:].sum(axis=2)
    assert mass_KGL.shape == (len(WIDTHS), 2 if states else 1, LIMIT + 1)
    np.testing.assert_allclose(total_KG, 1, atol=2 * LIMIT * 2.0**-40)
    assert gaussian_bits(states).max() <= 40


@pytest.mark.parametrize("grid", [0, 1])
@pytest.mark.parametrize("width_class", [8, 16, 28])
def test_code_lengths_are_the_gaussian_mass_of_what_is_nearest(grid, width_class):
    x_N = np.linspace(-6, 6, 240_001) * WIDTHS[width_class]
    mass_N = np.exp(-((x_N / WIDTHS[width_class]) ** 2) / 2)
    integers_K = np.arange(-20, 21)
    values_K = 2 * integers_K - grid * np.sign(integers_K)
    index_N = np.abs(x_N[:, None] - values_K).argmin(axis=1)
    mass_K = np.bincount(index_N, mass_N, minlength=len(values_K)) / mass_N.sum()
    bits_K = gaussian_bits(8)[width_class, grid, abs(integers_K)]
    common = mass_K > 1e-5
    np.testing.assert_allclose(bits_K[common], -np.log2(mass_K[common]), atol=0.02)


@settings(max_examples=60)
@given(
    st.integers(0, 9999),
    st.sampled_from([0.3, 0.7, 1.5, 5.0]),
    st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    st.sampled_from([1, 7, 127]),
)
def test_a_plain_column_is_the_best_of_all_integers(seed, width, rate_weight, limit):
    weight = np.random.default_rng(seed).normal(0, width, (12, 9))
    integers = in_steps(weight, Grid(limit, 0, rate_weight))
    values = np.arange(-limit, limit + 1)
    bits_RK = gaussian_bits(0)[classes(weight), 0][:, abs(values)]
    cost_RCK = (weight[:, :, None] - values) ** 2 + rate_weight * np.log(2) / 6 * bits_RK[:, None]
    np.testing.assert_array_equal(integers, values[cost_RCK.argmin(axis=2)])


@pytest.mark.parametrize("states", [4, 8])
@pytest.mark.parametrize(("width", "rate_weight"), [(2.0, 0.0), (2.0, 0.3), (2.0, 1.0), (1.2, 2.0)])
@pytest.mark.parametrize("rows", [1, 2, 4, 6])
def test_a_trellis_column_is_the_best_of_all_paths(states, width, rate_weight, rows):
    weight_RC = np.random.default_rng(rows).normal(0, width, (rows, 1200 // rows**2))
    integers_RN, values_RN, grid_RN = paths(states, rows)
    price = rate_weight * PRICE[states]
    bits_RN = np.stack(
        [gaussian_bits(states)[k][g, abs(i)] for k, g, i in zip(classes(weight_RC), grid_RN, integers_RN, strict=True)]
    )
    found_RC = in_steps(weight_RC, Grid(REACH, states, rate_weight))
    for weight_R, found_R in zip(weight_RC.T, found_RC.T, strict=True):
        cost_N = ((weight_R[:, None] - values_RN) ** 2 + price * bits_RN).sum(axis=0)
        found = (integers_RN == found_R[:, None]).all(axis=0).argmax()
        assert cost_N[found] == pytest.approx(cost_N.min(), rel=1e-12)


@pytest.mark.parametrize("states", [4, 8])
def test_zeros_that_pruning_asks_for_bend_the_path_only(states):
    generator = np.random.default_rng(1)
    weight_RC, kept_RC = generator.normal(0, 2.0, (5, 12)), generator.random((5, 12)) < 0.6
    integers_RN, values_RN, _ = paths(states, 5)
    found_RC = in_steps(weight_RC, Grid(REACH, states), kept_RC)
    for weight_R, kept_R, found_R in zip(weight_RC.T, kept_RC.T, found_RC.T, strict=True):
        allowed = (integers_RN[~kept_R] == 0).all(axis=0)
        error_N = ((weight_R[:, None] - values_RN) ** 2).sum(axis=0)
        found = (integers_RN == found_R[:, None]).all(axis=0).argmax()
        assert allowed[found] and error_N[found] == pytest.approx(error_N[allowed].min(), rel=1e-12)


@given(st.integers(0, 9999), st.sampled_from([0, 4, 8]), st.sampled_from([1, 3, 31, 127]), st.floats(0, 5), st.floats(-3, 3))
def test_limits_are_obeyed_and_reached(seed, states, limit, rate_weight, magnitude):
    weight = np.random.default_rng(seed).normal(0, 10**magnitude, (7, 11))
    weight[0, 0] = 1e4
    integers = in_steps(weight, Grid(limit, states, rate_weight))
    assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() == limit
    assert ((integers == 0) | (np.sign(integers) == np.sign(weight))).all()


@pytest.mark.parametrize(("states", "gain"), [(4, 0.9), (8, 1.0)])
def test_gain_over_a_plain_grid_of_the_same_spacing(states, gain):
    """In dB, on Gaussian weights 8 steps wide: each of the two grids has the spacing of the plain one."""
    weight = np.random.default_rng(2).normal(0, 8, (600, 100))
    plain = ((weight - in_steps(weight, Grid(127))) ** 2).mean()
    trellis = ((weight - steps_of(in_steps(2 * weight, Grid(127, states)), states) / 2) ** 2).mean()
    assert 10 * np.log10(plain / trellis) > gain


@pytest.mark.parametrize("rate_weight", [0.0, 1.0])
def test_rows_of_a_plain_grid_are_alone(rate_weight):
    generator = np.random.default_rng(3)
    weight, grid = generator.normal(0, 2, (9, 30)), Grid(15, 0, rate_weight)
    before = in_steps(weight, grid)
    weight[4] = generator.normal(0, 5, 30)
    changed = (in_steps(weight, grid) != before).any(axis=1)
    assert changed.tolist() == [row == 4 for row in range(9)]


@pytest.mark.parametrize("states", [0, 4, 8])
def test_a_higher_price_buys_fewer_bits_with_more_error(states):
    weight = np.random.default_rng(4).normal(0, 3, (200, 60))
    bits, errors = [], []
    for rate_weight in (0.0, 0.3, 1.0, 3.0):
        integers = in_steps(weight, Grid(127, states, rate_weight))
        grid = grids_of(integers, states) if states else np.zeros_like(integers)
        lengths = gaussian_bits(states)[classes(weight)[:, None], grid, np.abs(integers)]
        bits.append(lengths.mean())
        errors.append(((weight - steps_of(integers, states)) ** 2).mean())
    assert bits == sorted(bits, reverse=True) and len(set(bits)) == 4
    assert errors == sorted(errors) and len(set(errors)) == 4


@pytest.mark.parametrize("states", [0, 4])
def test_errors_are_passed_on_within_the_block(states):
    """round_block fills the errors that `gptq` hands to later blocks, and corrects its own columns by them."""
    generator = np.random.default_rng(5)
    weight_BR, upper_BB = generator.normal(0, 3, (4, 6)), np.triu(generator.uniform(0.5, 1, (4, 4)))
    integers_BR, error_BR = np.zeros((4, 6), np.int8), np.zeros((4, 6))
    rest = (np.ones(6), gaussian_bits(states), np.zeros(6, np.int64), 127, NEXT_STATE.get(states, np.zeros((1, 2), np.uint8)))
    round_block(weight_BR.copy(), np.ones((4, 6), bool), upper_BB, np.zeros(4), *rest, integers_BR, error_BR)
    values_BR = steps_of(integers_BR.T, states).T
    corrected_BR = weight_BR.copy()
    for j in range(4):
        np.testing.assert_allclose(error_BR[j], (corrected_BR[j] - values_BR[j]) / upper_BB[j, j], rtol=1e-9)
        corrected_BR[j + 1 :] -= np.outer(upper_BB[j, j + 1 :], error_BR[j])
