"""Schedules at the points that define them, and as a learning rate may move at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.optim.schedule import momentum, warmdown, weight_decay_factor

fractions = st.floats(0, 1)


@pytest.mark.parametrize(
    ("done", "fraction", "expected"),
    [(0, 0.4, 1), (0.6, 0.4, 1), (0.8, 0.4, 0.5), (0.9, 0.4, 0.25), (1, 0.4, 0), (0.25, 1, 0.75), (0.99, 0, 1), (1, 0, 1)],
)
def test_warmdown_is_flat_then_linear_to_zero(done, fraction, expected):
    assert warmdown(done, fraction) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("done", "expected"), [(0.15, 1), (0.575, 0.5), (0.915, 0.1), (0.95, 0.1), (1, 0.1)])
def test_a_linear_warmdown_stops_at_its_minimum(done, expected):
    """#1787 with MIN_LR 0.1 and a warm-down of 0.85: the slope is that of a fall to 0."""
    assert warmdown(done, 0.85, "linear", 0.1) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("done", "minimum", "expected"),
    [(0.5, 0, 1), (0.625, 0, (1 + 0.5**0.5) / 2), (0.75, 0, 0.5), (1, 0, 0), (0.5, 0.2, 1), (0.75, 0.2, 0.6), (1, 0.2, 0.2)],
)
def test_a_cosine_warmdown_is_half_a_wave_down_to_its_minimum(done, minimum, expected):
    assert warmdown(done, 0.5, "cosine", minimum) == pytest.approx(expected, abs=1e-12)


@given(st.tuples(fractions, fractions), fractions, st.sampled_from(["linear", "cosine"]), fractions)
def test_warmdown_never_rises_and_stays_between_its_minimum_and_one(done, fraction, shape, minimum):
    early, late = (warmdown(moment, fraction, shape, minimum) for moment in sorted(done))
    assert minimum - 1e-12 <= late <= early + 1e-12 <= 1 + 1e-12


@pytest.mark.parametrize(
    ("step", "warmup_steps", "expected"), [(0, 100, 0.85), (50, 100, 0.9), (100, 100, 0.95), (500, 100, 0.95), (0, 0, 0.95)]
)
def test_momentum_rises_linearly_over_its_warmup(step, warmup_steps, expected):
    assert momentum(step, 0.85, 0.95, warmup_steps) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("done", "final", "taper", "expected"),
    [
        (0, 0.5, 0.3, 1),
        (0.7, 0.5, 0.3, 1),
        (0.85, 0.5, 0.3, 0.75),
        (1, 0.5, 0.3, 0.5),
        (1, 3, 1, 3),
        (0.5, 3, 1, 2),
        (1, 0, 0, 1),
    ],
)
def test_weight_decay_is_flat_then_linear_to_its_final_factor(done, final, taper, expected):
    assert weight_decay_factor(done, final, taper) == pytest.approx(expected, abs=1e-12)
