"""GPTQ against optimal brain quantisation by hand, one input removed from the inverse Hessian at a time."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.quant.gptq import PRICE, Factor, Grid, error_energy, factorise, gptq, nearest
from fairway.quant.rounding import gaussian_bits, width_classes
from fairway.quant.trellis import steps_of

DAMPING = 0.01


def layer(rows: int, columns: int, seed: int, samples: int = 400) -> tuple[np.ndarray, torch.Tensor]:
    """A Gaussian weight and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight, x, mixing = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((rows, columns), (samples, columns), (columns, columns))
    )
    return weight.numpy(), mixing.T @ (x.T @ x / samples) @ mixing


def steps(weight: np.ndarray, limit: int, deviations: float = 3.0) -> np.ndarray:
    return (deviations * weight.std(axis=1) / limit).astype(np.float16)


def factor_of(hessian: torch.Tensor, damping: float = DAMPING, ordered: bool = True) -> Factor:
    return factorise(hessian, damping, ordered)


def output_error(weight: np.ndarray, integers: np.ndarray, scales: np.ndarray, hessian: torch.Tensor) -> float:
    values = integers * scales.astype(np.float64)[:, None]
    return np.einsum("rc,cd,rd->", weight - values, hessian.numpy(), weight - values).item()


def by_hand(weight: np.ndarray, hessian: torch.Tensor, choose, ordered: bool = True) -> np.ndarray:
    """Equations 2 and 3 of the paper. `choose` rounds a column (R,) to (integers, values), given the cost of a squared error
    in it while later columns can still compensate."""
    hessian = hessian.numpy()
    inverse = np.linalg.inv(hessian + DAMPING * np.trace(hessian) / len(hessian) * np.eye(len(hessian)))
    weight, integers = weight.copy(), np.zeros(weight.shape, np.int8)
    for q in np.argsort(-np.diag(hessian), kind="stable") if ordered else range(len(hessian)):
        integers[:, q], value = choose(weight[:, q], 1 / inverse[q, q])
        weight -= np.outer((weight[:, q] - value) / inverse[q, q], inverse[q])
        inverse -= np.outer(inverse[:, q], inverse[q]) / inverse[q, q]
    return integers


def to_nearest(scales: np.ndarray, limit: int):
    def choose(target, energy):
        integers = np.clip(np.rint(target / scales.astype(np.float64)), -limit, limit)
        return integers, integers * scales

    return choose


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 7, 31, 127]), st.sampled_from([1, 2, 3, 6, 128]), st.booleans())
def test_equals_the_algorithm_by_hand_whatever_the_block(seed, limit, block, ordered):
    weight, hessian = layer(8, 6, seed)
    scales = steps(weight, limit)
    integers = gptq(weight, factor_of(hessian, ordered=ordered), scales, Grid(limit), block=block)
    assert integers.dtype == np.int8
    np.testing.assert_array_equal(integers, by_hand(weight, hessian, to_nearest(scales, limit), ordered))


@pytest.mark.parametrize("states", [4, 8])
def test_on_a_trellis_every_column_is_the_best_of_all_paths(states):
    weight, hessian = layer(4, 6, seed=1)
    scales = steps(weight, 3, 1.5)
    paths_RN = np.array(list(itertools.product(range(-3, 4), repeat=4)), np.int8).T
    values_RN = steps_of(paths_RN, states) * scales.astype(np.float64)[:, None]

    def choose(target, energy):
        # rows have steps of their own, and the search counts errors in them
        error_N = (((target[:, None] - values_RN) / scales.astype(np.float64)[:, None]) ** 2).sum(axis=0)
        return paths_RN[:, error_N.argmin()], values_RN[:, error_N.argmin()]

    integers = gptq(weight, factor_of(hessian), scales, Grid(3, states))
    np.testing.assert_array_equal(integers, by_hand(weight, hessian, choose))


@pytest.mark.parametrize("rate_weight", [0.3, 1.0])
def test_rate_aware_rounding_minimises_error_and_bits_at_one_price(rate_weight):
    """The price of a bit is the same for all columns in units of loss; in squared steps it differs by column."""
    weight, hessian = layer(30, 6, seed=2)
    scales = steps(weight, 7, 5.0)
    energies = []
    by_hand(weight, hessian, lambda target, energy: (energies.append(energy), to_nearest(scales, 7)(target, energy))[1])
    class_R = width_classes(np.sqrt((weight**2).mean(axis=1)) / scales)
    integers_K = np.arange(-7, 8)
    bits_RK = gaussian_bits(0)[class_R, 0][:, abs(integers_K)]

    def choose(target, energy):
        step_R1 = scales.astype(np.float64)[:, None]
        price_R1 = rate_weight * 2 * np.log(2) / 12 * np.mean(energies) * step_R1**2
        cost_RK = energy * (target[:, None] - integers_K * step_R1) ** 2 + price_R1 * bits_RK
        return integers_K[cost_RK.argmin(axis=1)], integers_K[cost_RK.argmin(axis=1)] * scales.astype(np.float64)

    integers = gptq(weight, factor_of(hessian), scales, Grid(7, 0, rate_weight))
    np.testing.assert_array_equal(integers, by_hand(weight, hessian, choose))
    assert (integers != gptq(weight, factor_of(hessian), scales, Grid(7))).any()


@pytest.mark.parametrize("grid", [Grid(31), Grid(31, 8), Grid(31, 4, 0.5)])
def test_block_size_does_not_change_a_larger_layer(grid):
    weight, hessian = layer(40, 150, seed=3)
    factor, scales = factor_of(hessian), steps(weight, 31, 8.0)
    first, *others = [gptq(weight, factor, scales, grid, block=block) for block in (1, 32, 128, 512)]
    assert all(np.array_equal(first, other) for other in others)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 24), st.sampled_from([3, 7, 31]), st.booleans())
def test_is_never_worse_than_rounding_to_nearest_on_correlated_inputs(seed, columns, limit, ordered):
    """Summed over 64 rows: a single row may be unlucky."""
    weight, hessian = layer(64, columns, seed)
    scales = steps(weight, limit, 4.0)
    ours = gptq(weight, factor_of(hessian, ordered=ordered), scales, Grid(limit))
    plain = output_error(weight, nearest(weight, scales, Grid(limit)), scales, hessian)
    assert output_error(weight, ours, scales, hessian) <= plain


def test_a_wide_layer_loses_about_half_as_much():
    weight, hessian = layer(32, 64, seed=4)
    scales = steps(weight, 7)
    integers = gptq(weight, factor_of(hessian), scales, Grid(7))
    plain = nearest(weight, scales, Grid(7))
    assert output_error(weight, integers, scales, hessian) < 0.6 * output_error(weight, plain, scales, hessian)


@pytest.mark.parametrize("grid", [Grid(15), Grid(15, 8), Grid(15, 0, 0.5)])
def test_is_nearest_where_columns_cannot_help_each_other(grid):
    weight, _ = layer(16, 20, seed=5)
    scales = steps(weight, 15)
    integers = gptq(weight, factor_of(3 * torch.eye(20, dtype=torch.float64)), scales, grid, block=8)
    np.testing.assert_array_equal(integers, nearest(weight, scales, grid))


def test_nearest_is_the_nearest_integer():
    weight, _ = layer(16, 20, seed=6)
    scales = steps(weight, 15, 2.0)
    exact = np.clip(np.rint(weight / scales.astype(np.float64)[:, None]), -15, 15)
    np.testing.assert_array_equal(nearest(weight, scales, Grid(15)), exact)


def test_dead_inputs_get_zeros_and_change_nothing_else():
    weight, hessian = layer(8, 10, seed=7)
    dead = [2, 7]
    alive = [column for column in range(10) if column not in dead]
    hessian[dead] = hessian[:, dead] = 0
    scales = steps(weight, 7)
    integers = gptq(weight, factor_of(hessian), scales, Grid(7))
    assert not integers[:, dead].any()
    alone = gptq(weight[:, alive], factor_of(hessian[alive][:, alive]), scales, Grid(7))
    np.testing.assert_array_equal(integers[:, alive], alone)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_unit_of_the_hessian_does_not_matter_even_with_dead_inputs(scale):
    weight, hessian = layer(20, 12, seed=8)
    hessian[5] = hessian[:, 5] = 0
    scales, grid = steps(weight, 7, 5.0), Grid(7, 0, 1.0)
    integers = gptq(weight, factor_of(hessian), scales, grid)
    np.testing.assert_array_equal(gptq(weight, factor_of(scale * hessian), scales, grid), integers)
    assert factor_of(scale * hessian).mean_energy == pytest.approx(scale * factor_of(hessian).mean_energy)


@settings(max_examples=20)
@given(st.integers(0, 999), st.integers(1, 12), st.booleans())
def test_factor_is_the_root_of_the_inverse(seed, columns, ordered):
    _, hessian = layer(1, columns, seed)
    factor = factor_of(hessian, ordered=ordered)
    diagonal = hessian.diagonal().numpy()
    order = np.argsort(-diagonal, kind="stable") if ordered else np.arange(columns)
    np.testing.assert_array_equal(factor.order_C, order)
    damped = (hessian.numpy() + DAMPING * diagonal.mean() * np.eye(columns))[np.ix_(order, order)]
    assert not np.tril(factor.upper_CC, -1).any()
    np.testing.assert_allclose(factor.upper_CC.T @ factor.upper_CC @ damped, np.eye(columns), atol=1e-8)
    # what an error of a column costs when those after it have made good what they can: a Schur complement
    for k, energy in enumerate(factor.energy_C):
        made_good = damped[k, k + 1 :] @ np.linalg.solve(damped[k + 1 :, k + 1 :], damped[k + 1 :, k])
        assert energy == pytest.approx(damped[k, k] - made_good, rel=1e-6)


def test_a_hessian_of_low_rank_needs_its_damping_only():
    weight, hessian = layer(8, 12, seed=10, samples=3)  # rank 3 of 12
    scales = steps(weight, 31, 4.0)
    factor = factor_of(hessian)
    assert factor.damping == DAMPING
    np.testing.assert_array_equal(gptq(weight, factor, scales, Grid(31)), by_hand(weight, hessian, to_nearest(scales, 31)))


def test_damping_grows_tenfold_until_the_hessian_is_positive_definite():
    indefinite = torch.tensor([[1.0, 1.5], [1.5, 1.0]])  # eigenvalues 2.5 and −0.5
    assert factor_of(indefinite).damping == pytest.approx(1.0)
    assert factor_of(indefinite, 0.6).damping == 0.6


def test_a_hopeless_hessian_has_no_factor():
    assert factorise(torch.tensor([[1.0, 99.0], [99.0, 1.0]]), DAMPING) is None
    assert factorise(torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]]), DAMPING) is None


@pytest.mark.parametrize("states", [0, 4, 8])
def test_what_is_not_kept_is_zero_and_the_rest_makes_good(states):
    weight, hessian = layer(24, 32, seed=11, samples=40)
    kept = np.abs(weight) > 0.5
    pruned = np.where(kept, weight, 0.0)
    scales, grid = steps(weight, 15), Grid(15, states)
    ours, plain = gptq(weight, factor_of(hessian), scales, grid, kept), nearest(pruned, scales, grid, kept)
    assert not ours[~kept].any() and not plain[~kept].any()
    ours, plain = steps_of(ours, states), steps_of(plain, states)
    assert output_error(weight, ours, scales, hessian) < 0.9 * output_error(weight, plain, scales, hessian)


def test_error_energy_is_the_mean_squared_change_of_the_outputs():
    generator = torch.Generator().manual_seed(12)
    x, delta = torch.randn(50, 7, generator=generator), torch.randn(4, 7, generator=generator)
    expected = (x.double() @ delta.double().T).square().mean(dim=0)
    torch.testing.assert_close(error_energy(delta, (x.T @ x / 50).double()), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("states", [0, 4, 8])
def test_a_bit_is_worth_twice_the_error_in_nats(states):
    """D ∝ 2^−2R, so −dD/dR = 2 ln 2 · D, with D measured on white noise, in squared steps."""
    weight = np.random.default_rng(13).uniform(4, 44, (500, 100))  # about zero, which both grids have, it is less
    values = steps_of(nearest(weight, np.ones(500, np.float16), Grid(127, states)), states)
    assert PRICE[states] == pytest.approx(2 * np.log(2) * ((weight - values) ** 2).mean(), rel=0.01)
