"""The trellis against its parities, a walk in plain Python, Ungerboeck's distances and an exhaustive search."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fairway.quant.trellis import NEXT_STATE, steps_of

coded = arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-127, 127))


def next_state(state: int, parity: int, states: int) -> int:
    """The encoders in words: bits of the state a1 (the lowest), a2, a3, and the parity of the integer."""
    a1, a2, a3 = state % 2, state // 2 % 2, state // 4
    bits = (a2 ^ parity, a1) if states == 4 else (a2 ^ a1, a3 ^ parity, a1)
    return sum(bit << place for place, bit in enumerate(bits))


def walk(integers: list[int], states: int) -> list[int]:
    """One column."""
    state, values = 0, []
    for integer in integers:
        sign = (integer > 0) - (integer < 0)
        values.append(2 * integer - sign if state % 2 else 2 * integer)
        state = next_state(state, integer % 2, states)
    return values


def end_state(integers: tuple[int, ...], states: int) -> int:
    state = 0
    for integer in integers:
        state = next_state(state, integer % 2, states)
    return state


def viterbi(targets_RC: np.ndarray, states: int, reach: int) -> np.ndarray:
    """The least squared error of each column (C,) with coded integers −reach…reach, one path kept a state."""
    integers_K = np.arange(-reach, reach + 1)
    values_2K = np.stack([2 * integers_K, 2 * integers_K - np.sign(integers_K)])
    cost_SC = np.full((states, targets_RC.shape[1]), np.inf)
    cost_SC[0] = 0
    for target_C in targets_RC:
        new_SC = np.full_like(cost_SC, np.inf)
        for state, parity in itertools.product(range(states), range(2)):
            values = values_2K[state % 2][integers_K % 2 == parity]
            error_C = ((target_C - values[:, None]) ** 2).min(axis=0)
            after = next_state(state, parity, states)
            new_SC[after] = np.minimum(new_SC[after], cost_SC[state] + error_C)
        cost_SC = new_SC
    return cost_SC.min(axis=0)


@pytest.mark.parametrize("states", [4, 8])
def test_table_is_the_parity_machine_and_can_be_walked_backwards(states):
    table = NEXT_STATE[states]
    expected = [[next_state(state, parity, states) for parity in range(2)] for state in range(states)]
    assert table.dtype == np.uint8 and table.tolist() == expected
    assert sorted(table.flatten().tolist()) == sorted(2 * list(range(states)))  # two ways into every state


@given(coded, st.sampled_from([4, 8]))
def test_steps_are_those_of_a_walk_down_each_column(integers, states):
    before = integers.copy()
    steps = steps_of(integers, states)
    assert steps.dtype == np.int16 and steps.shape == integers.shape
    assert steps.T.tolist() == [walk(column, states) for column in integers.T.tolist()]
    np.testing.assert_array_equal(steps_of(np.asfortranarray(integers), states), steps)
    np.testing.assert_array_equal(integers, before)


@given(coded)
def test_a_plain_grid_is_the_integers_themselves(integers):
    assert steps_of(integers, 0).dtype == np.int16
    np.testing.assert_array_equal(steps_of(integers, 0), integers)


@given(coded, st.sampled_from([0, 4, 8]))
def test_mirrored_integers_give_mirrored_steps(integers, states):
    np.testing.assert_array_equal(steps_of(-integers, states), -steps_of(integers, states))


@pytest.mark.parametrize("states", [4, 8])
def test_both_grids_come_into_force_and_together_hold_every_multiple_of_the_step(states):
    first = np.array(list(itertools.product(range(-3, 4), repeat=4)), np.int8).T
    reached = {row: set(steps.tolist()) for row, steps in enumerate(steps_of(first, states))}
    assert reached[0] == set(range(-6, 7, 2))  # state 0: the even grid
    assert reached[3] == set(range(-6, 7))


@pytest.mark.parametrize(("states", "length", "distance"), [(4, 4, 9), (8, 5, 10)])
def test_free_distance_is_ungerboecks(states, length, distance):
    """1982, table I: sequences that part and meet again lie at least 9 and 10 squared steps from each other."""
    sequences = list(itertools.product(range(1, 6), repeat=length))  # one sign: there the grids are regular
    values_LN = steps_of(np.array(sequences, np.int8).T, states).astype(np.float32)
    ends = np.array([end_state(sequence, states) for sequence in sequences])
    least = np.inf
    for state in range(states):
        meeting_LN = values_LN[:, ends == state]
        energy_N = (meeting_LN**2).sum(axis=0)
        squared_NN = energy_N[:, None] + energy_N - 2 * meeting_LN.T @ meeting_LN
        np.fill_diagonal(squared_NN, np.inf)
        least = min(least, squared_NN.min())
    assert least == distance


@pytest.mark.parametrize("states", [4, 8])
def test_different_integers_stand_for_different_steps(states):
    sequences = np.array(list(itertools.product(range(-2, 3), repeat=5)), np.int8).T
    assert len(np.unique(steps_of(sequences, states), axis=1).T) == sequences.shape[1]


@pytest.mark.parametrize("states", [4, 8])
def test_exhaustive_search_finds_what_one_path_a_state_finds(states):
    """The state is all that the past tells: keeping the best path into each state loses nothing."""
    values_RN = steps_of(np.array(list(itertools.product(range(-2, 3), repeat=6)), np.int8).T, states)
    targets_RC = np.random.default_rng(0).uniform(-4, 4, (6, 20))
    best = [((target[:, None] - values_RN) ** 2).sum(axis=0).min() for target in targets_RC.T]
    np.testing.assert_allclose(viterbi(targets_RC, states, reach=2), best, rtol=1e-12)


@pytest.mark.parametrize(("states", "gain"), [(4, 0.99), (8, 1.08)])
def test_gain_over_the_plain_grid_of_equal_rate(states, gain):
    """In dB. The coded integers of a step of 1 are as many as those of a plain grid of step 2, whose error is 2²/12.

    Targets are of one sign: about zero, which both grids have, the error is smaller still.
    """
    targets_RC = np.random.default_rng(1).uniform(4, 24, (1000, 300))
    error = viterbi(targets_RC, states, reach=14).mean() / len(targets_RC)
    assert 10 * np.log10(4 / 12 / error) == pytest.approx(gain, abs=0.02)
