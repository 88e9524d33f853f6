"""Dependent quantisation (trellis-coded): a state machine selects one of two interleaved grids for each integer.

Each grid has twice the step; their union has the single step. The parities of the integers so far determine which grid is
used (Ungerboeck's codes of 1982; as in JPEG 2000 part 2 and VVC), so a rounding that looks ahead (Viterbi) chooses from the
fine grid at the bits of the coarse one. It gains 0.99 dB with 4 states and 1.09 dB with 8, of 1.53 dB that any rounding can
gain: 0.18 bits per weight at equal error. The trellis runs down each column, starting at row 0 in state 0.
"""

import numpy as np

from fairway.kernels import njit


def _next_states(states: int) -> np.ndarray:
    """[state, parity] → state: the feedback encoders 5/2 and 13/04 (octal). The lowest bit of a state selects the grid."""
    table = np.zeros((states, 2), np.uint8)
    for state in range(states):
        a, b, c = state & 1, state >> 1 & 1, state >> 2
        for parity in range(2):
            table[state, parity] = (b ^ parity) | a << 1 if states == 4 else (a ^ b) | (c ^ parity) << 1 | a << 2
    return table


NEXT_STATE = {states: _next_states(states) for states in (4, 8)}


def steps_of(integers_RC: np.ndarray, states: int) -> np.ndarray:
    """The values of coded integers k in steps, int16 (R, C): 2k on one grid, 2k − sign(k) on the other; plain grids: k."""
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
