"""GPTQ's compiled inner loop: round a block of columns to integers and propagate each column's error to later columns.

Three ways to round a column: to nearest; to the integer of least error + price · bits; or along a trellis, where a Viterbi
search covers all rows of the column at once (trellis.py says why that pays). Bits are the code lengths of a Gaussian as wide
as the row, which the adaptive models of the weight coder come close to.

Shape letters: R rows, B columns of the block, G the two grids of a trellis, K classes of width, L integers from 0, S states.
"""

from functools import cache
from math import erf, sqrt

import numpy as np

from fairway.kernels import njit

LIMIT = 127  # the largest integer of any grid
WIDTHS = 2.0 ** (np.arange(-16, 33) / 4)  # of the classes: standard deviations of a row, in steps
FAR = 1e100  # cost of an unreachable state


def width_classes(width_R: np.ndarray) -> np.ndarray:
    """The class of each row, int64 (R,), from the standard deviations of the rows' weights in steps."""
    nearest = np.rint(4 * np.log2(np.maximum(width_R, WIDTHS[0]))).astype(np.int64) + 16
    return np.minimum(nearest, len(WIDTHS) - 1)


@cache
def gaussian_bits(states: int) -> np.ndarray:
    """Code lengths (K, G, L) of the integer k in bits, sign included, at most 40: −log2 of the mass that is nearest to k.

    G is 2 with a trellis and 1 for a plain grid.
    """
    grids = [np.arange(LIMIT + 1.0)] if not states else [2.0 * np.arange(LIMIT + 1), 2.0 * np.arange(LIMIT + 1) - 1]
    if states:
        grids[1][0] = 0
    bits_KGL = np.zeros((len(WIDTHS), len(grids), LIMIT + 1))
    for g, value_L in enumerate(grids):
        edge_L = np.append((value_L[1:] + value_L[:-1]) / 2, np.inf)
        for k, width in enumerate(WIDTHS):
            below_L = np.array([0.5 * erf(edge / (width * sqrt(2))) for edge in edge_L])
            mass_L = np.diff(below_L, prepend=-below_L[0])
            bits_KGL[k, g] = -np.log2(np.maximum(mass_L, 2.0**-40))
    return bits_KGL


@njit(nogil=True)
def round_block(weight_BR, kept_BR, factor_BB, price_B, scale_R, bits_KGL, class_R, limit, next_state, integers_BR, error_BR):
    """Round the columns of a block one after the other; overwrites `weight_BR`, fills `integers_BR` and `error_BR`.

    Weights that are not kept become 0. `factor_BB` is the block of the upper triangular U with UᵀU = H⁻¹, `price_B` the price
    of a bit in squared steps, `next_state` (states, 2) the trellis, one state for a plain grid. Errors are (w − ŵ) / U_jj.
    """
    B, R = weight_BR.shape
    states = len(next_state)
    position_R, value_R = np.empty(R), np.empty(R)
    back_RS, candidate_RGP = np.empty((R, states), np.uint8), np.empty((R, 2, 2), np.int16)
    for j in range(B):
        # Round the column, in units of the row's step.
        for r in range(R):
            position_R[r] = weight_BR[j, r] / scale_R[r]
        if states == 1:
            _round_plain(position_R, kept_BR[j], price_B[j], bits_KGL, class_R, limit, integers_BR[j], value_R)
        else:
            _round_trellis(
                position_R, kept_BR[j], price_B[j], bits_KGL, class_R, limit, next_state,
                integers_BR[j], value_R, back_RS, candidate_RGP,
            )  # fmt: skip
        # Subtract its error from the later columns of the block, as far as their inputs are correlated with this one's.
        for r in range(R):
            error_BR[j, r] = (weight_BR[j, r] - value_R[r] * scale_R[r]) / factor_BB[j, j]
        for i in range(j + 1, B):
            if factor_BB[j, i] != 0.0:
                weight_BR[i] -= factor_BB[j, i] * error_BR[j]


@njit(nogil=True)
def _round_plain(position_R, kept_R, price, bits_KGL, class_R, limit, integers_R, value_R):
    """Per row the cheapest of three integers: the nearest, the next one towards zero, and zero."""
    for r in range(len(position_R)):
        size = abs(position_R[r])
        nearest = min(int(np.rint(size)), limit) if kept_R[r] else 0
        best, least = nearest, FAR
        for k in (nearest, max(nearest - 1, 0), 0):
            cost = (size - k) ** 2 + price * bits_KGL[class_R[r], 0, k]
            if cost < least:
                best, least = k, cost
        integers_R[r] = value_R[r] = best if position_R[r] >= 0 else -best


@njit(nogil=True)
def _round_trellis(
    position_R, kept_R, price, bits_KGL, class_R, limit, next_state, integers_R, value_R, back_RS, candidate_RGP
):
    """The path through the trellis with the least squared error plus price · bits over all rows of a column (Viterbi)."""
    R, S = len(position_R), len(next_state)
    cost_S, onward_S, cost_GP = np.full(S, FAR), np.empty(S), np.empty((2, 2))
    cost_S[0] = 0.0
    for r in range(R):
        # The state determines the grid, the integer's parity the next state: find the cheapest integer for each of the four
        # combinations of grid and parity. The even ones may also be zero. A pruned weight must be zero.
        size = abs(position_R[r])
        for grid in range(2):
            for parity in range(2):
                k = _nearest_of(size, grid, parity, limit) if kept_R[r] else parity
                cost = (size - (2 * k - grid * (k > 0))) ** 2 + price * bits_KGL[class_R[r], grid, k]
                if parity and not kept_R[r]:
                    cost = FAR
                elif parity == 0 and k:
                    zero = size**2 + price * bits_KGL[class_R[r], grid, 0]
                    if zero < cost:
                        k, cost = 0, zero
                cost_GP[grid, parity] = cost
                candidate_RGP[r, grid, parity] = k
        # Extend the best path of each state by both parities; keep the cheapest path into each next state.
        onward_S[:] = FAR
        for state in range(S):
            for parity in range(2):
                following = next_state[state, parity]
                cost = cost_S[state] + cost_GP[state & 1, parity]
                if cost < onward_S[following]:
                    onward_S[following] = cost
                    back_RS[r, following] = 2 * state + parity
        cost_S[:] = onward_S
    # Follow the cheapest path back from the last row.
    state = np.int64(np.argmin(cost_S))
    for r in range(R - 1, -1, -1):
        step = np.int64(back_RS[r, state])
        state = step >> 1
        k = candidate_RGP[r, state & 1, step & 1]
        value = 2 * k - (state & 1) * (k > 0)
        integers_R[r] = k if position_R[r] >= 0 else -k
        value_R[r] = value if position_R[r] >= 0 else -value


@njit(nogil=True)
def _nearest_of(size, grid, parity, limit):
    """The integer k of this parity, within the limit, whose value 2k − grid is nearest to a size of at least 0."""
    k = 2 * int(np.rint((size + grid - 2 * parity) / 4)) + parity
    return min(max(k, parity), limit - (limit + parity) % 2)
