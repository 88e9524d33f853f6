"""Weights of a stored matrix against the formula in float64, computed without the package's own functions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.clips import steps
from fairway.quant.grids import quantise, to_half
from fairway.quant.low_rank import factors, quantise_factors
from fairway.quant.matrix import QuantisedMatrix


def random_matrix(rows: int, columns: int, bits: int, seed: int, **options) -> QuantisedMatrix:
    generator = np.random.default_rng(seed)
    limit = 2 ** (bits - 1) - 1
    integers = generator.integers(-limit, limit + 1, (rows, columns), dtype=np.int8)
    return QuantisedMatrix(integers, generator.uniform(0.001, 0.1, rows).astype(np.float16), bits, **options)


def multiples(integers: np.ndarray, states: int) -> np.ndarray:
    """2k or 2k − sign(k) by the lowest bit of the state, which parities advance; without states the integers themselves."""
    if not states:
        return integers.astype(np.float64)
    values = np.zeros(integers.shape)
    for column in range(integers.shape[1]):
        a1 = a2 = a3 = 0
        for row, k in enumerate(integers[:, column].tolist()):
            values[row, column] = 2 * k - a1 * np.sign(k)
            a1, a2, a3 = (a2 ^ k % 2, a1, 0) if states == 4 else (a2 ^ a1, a3 ^ k % 2, a1)
    return values


def by_formula(matrix: QuantisedMatrix) -> np.ndarray:
    weight = multiples(matrix.integers, matrix.states) * matrix.scales.astype(np.float64)[:, None]
    if matrix.rotation:
        hadamard = np.ones((1, 1))
        while len(hadamard) < matrix.rotation:
            hadamard = np.kron(hadamard, [[1, 1], [1, -1]])
        weight = weight @ np.kron(np.eye(weight.shape[1] // len(hadamard)), hadamard / np.sqrt(len(hadamard)))
    if matrix.correction:
        left, right = (by_formula(factor) for factor in matrix.correction)
        weight = weight + left.T @ right
    return weight


@given(st.integers(2, 8), st.sampled_from([0, 4, 8]), st.sampled_from([0, 1, 4, 8]), st.integers(0, 3), st.integers(0, 99))
def test_weights_follow_the_formula(bits, states, rotation, rank, seed):
    correction = (random_matrix(rank, 7, 4, seed + 1), random_matrix(rank, 24, 4, seed + 2)) if rank else None
    matrix = random_matrix(7, 24, bits, seed, states=states, rotation=rotation, correction=correction)
    weight = matrix.weights()
    assert weight.dtype == np.float32 and weight.shape == (7, 24)
    expected = by_formula(matrix)
    np.testing.assert_allclose(weight, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@given(st.sampled_from([0, 4, 8]), st.integers(0, 99))
def test_grids_are_exact_in_float32(states, seed):
    matrix = random_matrix(9, 5, 8, seed, states=states)
    assert np.array_equal(matrix.weights().astype(np.float64), by_formula(matrix))


def test_extreme_steps_stay_exact():
    matrix = QuantisedMatrix(np.array([[127], [-127]], np.int8), np.array([2.0**-24, 65504.0], np.float16), 8)
    assert matrix.weights().tolist() == [[127 * 2.0**-24], [-127 * 65504.0]]


def test_weights_are_fresh_every_time_and_leave_what_is_stored():
    correction = (random_matrix(2, 6, 2, 1), random_matrix(2, 16, 2, 2))
    matrix = random_matrix(6, 16, 5, seed=0, states=8, rotation=16, correction=correction)
    stored = [part.copy() for part in (matrix.integers, matrix.scales, correction[0].integers, correction[1].integers)]
    first = matrix.weights()
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(matrix.weights(), expected)
    for part, before in zip(
        (matrix.integers, matrix.scales, correction[0].integers, correction[1].integers), stored, strict=True
    ):
        np.testing.assert_array_equal(part, before)


def test_memory_layout_does_not_change_a_bit():
    correction = (random_matrix(2, 6, 4, 1), random_matrix(2, 16, 4, 2))
    matrix = random_matrix(6, 16, 5, seed=0, states=4, rotation=8, correction=correction)
    transposed = QuantisedMatrix(np.asfortranarray(matrix.integers), matrix.scales, 5, 4, 8, correction)
    assert transposed.weights().tobytes() == matrix.weights().tobytes()


@pytest.mark.parametrize("bits", [2, 4])
def test_a_correction_as_it_is_made_brings_the_weights_closer(bits):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 64, generator=generator, dtype=torch.float64)
    scales = to_half(steps(weight, "maximum", 3, 0.0), 10)
    integers = quantise(weight, scales, 3)
    plain = QuantisedMatrix(integers.numpy(), scales.numpy(), 3)
    error = weight - torch.from_numpy(plain.weights())
    pairs = quantise_factors(*factors(error, None, 8), bits)
    correction = tuple(QuantisedMatrix(*(part.numpy() for part in pair), bits) for pair in pairs)
    corrected = QuantisedMatrix(integers.numpy(), scales.numpy(), 3, correction=correction)
    remaining = weight - torch.from_numpy(corrected.weights())
    best = torch.linalg.svdvals(error)[8:].square().sum()
    gained = (error.square().sum() - remaining.square().sum()) / (error.square().sum() - best)
    assert gained > {2: 0.5, 4: 0.95}[bits]
