"""Dependent quantisation: a trellis decides which of two interleaved grids each integer stands on.

Both grids have twice the step; together they have it once. Which grid is in force depends on the parities of the
integers before (Ungerboeck 1982's codes; as in JPEG 2000 part 2 and VVC), so a rounder that looks ahead (Viterbi) has
the choice of the fine grid at the price of the coarse one: 0.99 dB with 4 states, 1.09 dB with 8, of 1.53 dB that any
rounding can gain; 0.18 bits a weight at equal error. The trellis runs down each column, from row 0 in state 0.
"""

import numpy as np

from fairway.kernels import njit


def _next_states(states: int) -> np.ndarray:
    """[state, parity] → state: the feedback encoders 5/2 and 13/04 (octal), whose lowest bit names the grid."""
    table = np.zeros((states, 2), np.uint8)
    for state in range(states):
        a, b, c = state & 1, state >> 1 & 1, state >> 2
        for parity in range(2):
            table[state, parity] = (b ^ parity) | a << 1 if states == 4 else (a ^ b) | (c ^ parity) << 1 | a << 2
    return table


NEXT_STATE = {states: _next_states(states) for states in (4, 8)}


def steps_of(integers_RC: np.ndarray, states: int) -> np.ndarray:
    """What coded integers k stand for, in steps, int16 (R, C): 2k on the one grid, 2k − sign(k) on the other; plain: k."""
    return _walk(integers_RC, NEXT_STATE[states]) if states else integers_RC.astype(np.int16)


@njit(nogil=True)
def _walk(integers_RC, next_state):
    R, C = integers_RC.shape
    steps_RC = np.empty((R, C), np.int16)
    state_C = np.zeros(C, np.uint8)
    for r in range(R):
        for c in range(C):
            k = np.int16(integers_RC[r, c])
            steps_RC[r, c] = 2 * k - (state_C[c] & 1) * ((k > 0) - (k < 0))
            state_C[c] = next_state[state_C[c], k & 1]
    return steps_RC
