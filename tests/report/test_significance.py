import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report.significance import upper_tail, welch

# Critical values of the printed tables: degrees of freedom, one-sided p, t.
TABLE = [(1, 0.05, 6.314), (2, 0.01, 6.965), (3, 0.005, 5.841), (5, 0.025, 2.571), (10, 0.01, 2.764), (30, 0.05, 1.697)]
CLOSED = {  # the tail where it has a closed form
    1: lambda t: 0.5 - math.atan(t) / math.pi,
    2: lambda t: 0.5 - t / (2 * math.sqrt(2 + t * t)),
    4: lambda t: 0.5 - 3 / 8 * (t / math.sqrt(1 + t * t / 4)) * (1 - t * t / (12 * (1 + t * t / 4))),
}


@pytest.mark.parametrize(("freedom", "p", "t"), TABLE)
def test_tail_agrees_with_the_printed_tables(freedom, p, t):
    assert upper_tail(t, freedom) == pytest.approx(p, rel=1e-3)


@given(st.sampled_from([1, 2, 4]), st.floats(-60, 60))
def test_tail_agrees_with_its_closed_forms(freedom, t):
    assert upper_tail(t, freedom) == pytest.approx(CLOSED[freedom](t), rel=1e-6, abs=1e-12)


@given(st.floats(0.5, 5000), st.floats(0, 30))
def test_tail_is_symmetric_and_falls(freedom, t):
    assert upper_tail(t, freedom) + upper_tail(-t, freedom) == pytest.approx(1)
    assert upper_tail(t + 0.5, freedom) < upper_tail(t, freedom) <= 0.5


def test_tail_of_many_degrees_of_freedom_is_normal():
    for t in (0.5, 1.96, 3.0):
        assert upper_tail(t, 1e6) == pytest.approx(math.erfc(t / math.sqrt(2)) / 2, rel=1e-4)


def test_tail_agrees_with_numerical_integration():
    def density(x, nu):
        front = math.gamma((nu + 1) / 2) / (math.gamma(nu / 2) * math.sqrt(nu * math.pi))
        return front * (1 + x * x / nu) ** (-(nu + 1) / 2)

    width = 0.001
    for nu, t in ((2.7, 1.3), (3.9, 4.0), (17.2, 0.2)):
        inside = sum(density((i + 0.5) * width, nu) for i in range(round(t / width))) * width
        assert upper_tail(t, nu) == pytest.approx(0.5 - inside, abs=1e-7)


def test_welch_by_hand():
    """Means 3 and 1, variances 1 and 0.25: error √(1/3 + 1/12), freedom (5/12)² / ((1/3)²/2 + (1/12)²/2) = 50/17."""
    found = welch([2.0, 3.0, 4.0], [0.5, 1.0, 1.5])
    assert found.gain == pytest.approx(2)
    assert found.t == pytest.approx(2 / math.sqrt(5 / 12))
    assert found.freedom == pytest.approx(50 / 17)
    assert found.p == pytest.approx(upper_tail(found.t, 50 / 17))


def test_the_margin_belongs_to_the_null_hypothesis():
    before, after = [1.0001, 1.0, 0.9999], [0.9951, 0.995, 0.9949]
    assert welch(before, after).p < 1e-5
    assert welch(before, after, 0.005).p == pytest.approx(0.5, abs=1e-6)
    assert welch(after, before).p > 0.999


def test_scores_that_do_not_vary():
    assert welch([2.0, 2.0], [1.0, 1.0], 0.5).p == 0
    assert welch([2.0, 2.0], [1.0, 1.0], 1.0).p == 1


def test_welch_is_wrong_as_often_as_it_says():
    """Groups that differ by exactly the margin, with unequal variances: p < 0.1 in about a tenth of them."""
    draw = random.Random(0)
    trials = 4000
    wrong = 0
    for _ in range(trials):
        before = [draw.gauss(1.005, 0.001) for _ in range(3)]
        after = [draw.gauss(1.0, 0.002) for _ in range(4)]
        wrong += welch(before, after, 0.005).p < 0.1
    assert 0.08 < wrong / trials < 0.12
