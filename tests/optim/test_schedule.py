"""Schedules at the points that define them."""

import pytest

from fairway.optim.schedule import momentum, warmdown


@pytest.mark.parametrize(
    ("done", "fraction", "expected"),
    [(0, 0.4, 1), (0.6, 0.4, 1), (0.8, 0.4, 0.5), (0.9, 0.4, 0.25), (1, 0.4, 0), (0.25, 1, 0.75), (0.99, 0, 1), (1, 0, 1)],
)
def test_warmdown_is_flat_then_linear_to_zero(done, fraction, expected):
    assert warmdown(done, fraction) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("step", "warmup_steps", "expected"), [(0, 100, 0.85), (50, 100, 0.9), (100, 100, 0.95), (500, 100, 0.95), (0, 0, 0.95)]
)
def test_momentum_rises_linearly_over_its_warmup(step, warmup_steps, expected):
    assert momentum(step, 0.95, warmup_steps) == pytest.approx(expected, abs=1e-12)
