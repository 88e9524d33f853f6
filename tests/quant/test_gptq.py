"""GPTQ against the plain algorithm: re-invert the Hessian of the columns that remain, correct them, repeat."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.quant.gptq import gptq, output_error
from fairway.quant.grids import dequantise, quantise, row_scales


def layer(rows: int, columns: int, seed: int, samples: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """A Gaussian weight and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    x = torch.randn(samples, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return weight, (x.T @ x / samples).double()


def by_hand(weight, hessian, scales, bits, damping):
    """Optimal brain quantisation, one row and one column at a time, in numpy."""
    limit = 2 ** (bits - 1) - 1
    damped = hessian.numpy() + damping * np.trace(hessian.numpy()) / len(hessian) * np.eye(len(hessian))
    left = list(np.argsort(-np.diag(hessian.numpy()), kind="stable"))
    weight = weight.numpy().astype(np.float64).copy()
    integers = np.zeros(weight.shape, dtype=np.int8)
    while left:
        inverse = np.linalg.inv(damped[np.ix_(left, left)])
        column = left[0]
        for row, step in enumerate(scales.numpy().astype(np.float64)):
            integers[row, column] = np.clip(np.rint(weight[row, column] / step), -limit, limit)
            error = weight[row, column] - integers[row, column] * step
            weight[row, left] -= error / inverse[0, 0] * inverse[0]
        left = left[1:]
    return torch.from_numpy(integers)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 8), st.sampled_from([1, 2, 3, 4, 6, 128]))
def test_equals_the_algorithm_by_hand_whatever_the_block(seed, bits, block):
    weight, hessian = layer(8, 6, seed)
    scales = row_scales(weight, bits, 3.0)
    solution = gptq(weight, hessian, scales, bits, damping=0.01, block=block)
    assert torch.equal(solution.integers, by_hand(weight, hessian, scales, bits, 0.01))
    assert (solution.method, solution.damping, solution.integers.dtype) == ("gptq", 0.01, torch.int8)


def test_block_size_does_not_change_a_larger_layer():
    weight, hessian = layer(40, 150, seed=3)
    scales = row_scales(weight, 6, 12.85)
    results = [gptq(weight, hessian, scales, 6, 0.01, block).integers for block in (1, 32, 128, 512)]
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_beats_rounding_to_nearest_on_correlated_inputs():
    weight, hessian = layer(32, 64, seed=4)
    scales = row_scales(weight, 4, 3.0)
    nearest = dequantise(quantise(weight, scales, 4), scales)
    solution = gptq(weight, hessian, scales, 4, 0.01, 128)
    assert solution.error < 0.6 * output_error(weight, nearest, hessian)


def test_is_rounding_to_nearest_for_a_diagonal_hessian():
    weight, _ = layer(16, 20, seed=5)
    scales = row_scales(weight, 5, 4.0)
    diagonal = torch.rand(20, generator=torch.Generator().manual_seed(6)) + 0.1
    solution = gptq(weight, torch.diag(diagonal), scales, 5, 0.01, 8)
    assert torch.equal(solution.integers, quantise(weight, scales, 5))


def test_error_is_the_share_of_output_energy():
    generator = torch.Generator().manual_seed(7)
    weight, restored = torch.randn(2, 5, 4, generator=generator, dtype=torch.float64)
    x = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    expected = (x @ (weight - restored).T).square().sum() / (x @ weight.T).square().sum()
    assert output_error(weight, restored, x.T @ x / 30) == pytest.approx(expected.item())


def test_dead_columns_become_zero_and_leave_the_others_alone():
    weight, hessian = layer(8, 6, seed=8)
    alive, dead = [0, 1, 3, 4, 5, 7], [2, 6, *range(8, 20)]
    with_dead = torch.zeros(20, 20, dtype=torch.float64)
    with_dead[np.ix_(alive, alive)] = hessian
    wide = torch.full((8, 20), 0.7)
    wide[:, alive] = weight
    scales = row_scales(wide, 6, 4.0)
    solution = gptq(wide, with_dead, scales, 6, 0.3, 3)
    assert solution.integers[:, dead].abs().max() == 0
    assert torch.equal(solution.integers[:, alive], gptq(weight, hessian, scales, 6, 0.3, 3).integers)


def test_inputs_that_are_always_zero_leave_nothing():
    weight, _ = layer(4, 5, seed=9)
    solution = gptq(weight, torch.zeros(5, 5), row_scales(weight, 6, 4.0), 6, 0.01, 128)
    assert (solution.method, solution.error, solution.integers.abs().max().item()) == ("gptq", 0.0, 0)


def test_singular_hessian_is_damped_and_solved():
    weight, hessian = layer(8, 12, seed=10, samples=3)  # rank 3 of 12
    scales = row_scales(weight, 6, 4.0)
    solution = gptq(weight, hessian, scales, 6, 0.01, 128)
    assert (solution.method, solution.damping) == ("gptq", 0.01)
    assert torch.equal(solution.integers, by_hand(weight, hessian, scales, 6, 0.01))


def test_damping_grows_tenfold_until_the_hessian_is_positive_definite():
    weight, _ = layer(4, 2, seed=11)
    hessian = torch.tensor([[1.0, 1.5], [1.5, 1.0]])  # eigenvalues 2.5 and −0.5
    solution = gptq(weight, hessian, row_scales(weight, 6, 4.0), 6, 0.01, 128)
    assert (solution.method, solution.damping) == ("gptq", pytest.approx(1.0))


def test_hopeless_hessian_falls_back_to_nearest_and_says_so():
    weight, _ = layer(4, 2, seed=12)
    scales = row_scales(weight, 6, 4.0)
    solution = gptq(weight, torch.tensor([[1.0, 99.0], [99.0, 1.0]]), scales, 6, 0.01, 128)
    assert solution.method == "fallback"
    assert np.isnan(solution.damping)
    assert torch.equal(solution.integers, quantise(weight, scales, 6))


def test_a_layer_of_768_by_256_takes_a_fraction_of_a_second():
    weight, hessian = layer(768, 256, seed=13)
    scales = row_scales(weight, 6, 12.85)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        gptq(weight, hessian, scales, 6, 0.01, 128)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5  # about 0.04 s on a free core; the margin is for a busy machine
