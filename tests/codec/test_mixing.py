"""Regression, tables and arithmetic coder of the weight coder against explicit sums and libm. Round trips: test_weights."""

import numpy as np
import pytest

from fairway.codec import mixing
from fairway.codec.weights import LAYOUTS

TREE = np.array([[~0, ~1, 1]])  # two ranks
START = np.full((mixing.CENTRES, mixing.WIDTHS, 1), 2**21)


def test_regression_factors_are_those_of_the_sum_of_squares():
    """L D Lᵀ after some rows against the explicit sum, and the means of each row against explicit solves."""
    rows = np.random.default_rng(2).normal(0, 1, (30, 6)) @ np.random.default_rng(3).normal(0, 1, (6, 6))
    state = mixing.memory(TREE, START, LAYOUTS[1], rows.shape, True)
    total = mixing.RIDGE * np.eye(6)
    for r, row in enumerate(rows):
        mixing.start_row(state.guess_5I, state.row_6, state.line_3D)
        for c, value in enumerate(row):
            explicit = total[c, :c] @ np.linalg.solve(total[:c, :c], row[:c]) if c else 0.0
            assert state.line_3D[mixing.MEAN, c] == pytest.approx(explicit, abs=1e-4)
            mixing.regress(state.column_3C, state.row_6, state.line_3D, state.lower_DD, r, c, value)
        mixing.take_row(state.lower_DD, state.diagonal_D, state.line_3D)
        total += np.outer(row, row)
    lower = np.eye(6) + np.triu(state.lower_DD, 1).T
    np.testing.assert_allclose(lower @ np.diag(state.diagonal_D) @ lower.T, total, rtol=1e-4, atol=1e-2)


def test_tables_are_what_they_approximate():
    x = (np.arange(len(mixing.SQUASH)) - 2816) / 256
    np.testing.assert_allclose(mixing.SQUASH / 65536, 1 / (1 + np.exp(-x)), atol=2**-16)
    p = (np.arange(4096) + 0.5) / 4096
    np.testing.assert_allclose(mixing.STRETCH, np.log(p / (1 - p)), atol=1 / 256)
    np.testing.assert_allclose(mixing.WIDTH, 2.0 ** (np.arange(128) / 8 - 6), rtol=1e-13)


@pytest.mark.parametrize("p", [1, 30000, 65535])
def test_arithmetic_coder_takes_the_bits_of_its_probabilities(p):
    """Encodes and decodes bits drawn with probability p / 2^16; the test itself closes the last interval."""
    bits = np.random.default_rng(0).random(5000) * 65536 < p
    share = bits.mean()
    ideal = -len(bits) * (share * np.log2(p / 65536) + (1 - share) * np.log2(1 - p / 65536))
    data, coder = np.zeros(2000, np.uint8), np.array([0, mixing.MASK, 0, 0])
    for bit in bits:
        mixing.code_bit(bit, p, data, True, coder)
    length = int(coder[mixing.AT])
    assert ideal - 48 <= 8 * length <= ideal + 8
    data[length] = (coder[mixing.LOW] >> 40) + 1
    decoder = np.array([0, mixing.MASK, int.from_bytes(data[:6].tobytes()), 6])
    assert [mixing.code_bit(False, p, data, False, decoder) for _ in bits] == bits.tolist()
