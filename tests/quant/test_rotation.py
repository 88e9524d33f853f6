"""The rotation against the explicit Hadamard matrix, and its effect on outliers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.rotation import block_size, rotate, rotate_hessian


def hadamard(columns: int, block: int) -> np.ndarray:
    """Sylvester's construction by Kronecker products, one block after the other on the diagonal."""
    one = np.ones((1, 1))
    while len(one) < block:
        one = np.kron(one, [[1, 1], [1, -1]])
    return np.kron(np.eye(columns // block), one / np.sqrt(block))


def gaussian(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, columns))


@pytest.mark.parametrize(("columns", "block"), [(1, 1), (7, 1), (96, 32), (512, 512), (1536, 512), (2048, 1024), (8192, 1024)])
def test_block_is_the_largest_power_of_two_up_to_1024(columns, block):
    assert block_size(columns) == block


@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 6), st.integers(0, 99))
def test_equals_the_explicit_matrix(rows, blocks, log_block, seed):
    block = 2**log_block
    x, matrix = gaussian(rows, blocks * block, seed), hadamard(blocks * block, block)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(blocks * block), atol=1e-12)
    np.testing.assert_allclose(rotate(x, block), x @ matrix, atol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("block", [1, 2, 128, 512])
def test_is_its_own_inverse_and_keeps_type_and_input(dtype, tolerance, block):
    x = gaussian(5, 1536).astype(dtype)
    before = x.copy()
    once = rotate(x, block)
    assert once.dtype == dtype and once.shape == x.shape and not np.shares_memory(once, x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(rotate(once, block), x, atol=tolerance * np.abs(x).max())


def test_torch_and_every_memory_layout_give_the_same_bits():
    x = gaussian(48, 64).astype(np.float32)
    expected = rotate(x, 16)
    np.testing.assert_array_equal(rotate(np.asfortranarray(x), 16), expected)
    np.testing.assert_array_equal(rotate(torch.from_numpy(x), 16).numpy(), expected)
    np.testing.assert_array_equal(rotate(torch.from_numpy(x).T.contiguous().T, 16).numpy(), expected)


def test_small_integers_are_rotated_exactly():
    x = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    assert rotate(x, 4).tolist() == [[5.0, -1.0, -2.0, 0.0]]  # √4 = 2: sums and differences over two


def test_output_error_is_the_same_in_either_basis():
    delta, inputs = gaussian(6, 96), gaussian(200, 96, seed=1) @ gaussian(96, 96, seed=2)
    hessian = torch.from_numpy(inputs.T @ inputs)
    matrix = hadamard(96, 32)
    rotated = rotate_hessian(hessian, 32)
    np.testing.assert_allclose(rotated.numpy(), matrix.T @ hessian.numpy() @ matrix, rtol=1e-10, atol=1e-8)
    energy = np.trace(delta @ hessian.numpy() @ delta.T)
    turned = rotate(delta, 32)
    assert np.trace(turned @ rotated.numpy() @ turned.T) == pytest.approx(energy, rel=1e-12)


def test_a_huge_column_is_spread_over_its_block():
    x = gaussian(64, 512)
    x[:, 17] *= 50

    def peak(weight: np.ndarray) -> np.ndarray:
        return np.abs(weight).max(axis=1) / np.sqrt((weight**2).mean(axis=1))

    assert np.median(peak(x)) > 10
    assert np.median(peak(rotate(x, 512))) < 4.5
