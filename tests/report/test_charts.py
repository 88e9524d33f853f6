import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report import charts

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def texts(svg):
    found = []
    parser = HTMLParser()
    parser.handle_data = found.append
    parser.feed(svg)
    return found


@given(numbers, numbers)
def test_ticks_are_round_few_and_inside(one, other):
    low, high = sorted((one, other))
    found = charts.ticks(low, high)
    room = 1e-6 * max(abs(low), abs(high))
    assert all(low - room <= value <= high + room for value in found)
    if high - low > 1e-6 * max(abs(low), abs(high), 1):
        assert 2 <= len(found) <= 7


@given(numbers, numbers, st.floats(0, 1))
def test_a_scale_keeps_proportions(low, span, part):
    scale = charts.scale(low, low + abs(span) + 1, 10, 20)
    assert scale(low + part * (abs(span) + 1)) == pytest.approx(10 + 10 * part, abs=1e-3)


def test_a_logarithmic_scale_gives_ratios_the_same_room():
    scale = charts.scale(1, 8, 0, 3, logarithmic=True)
    assert [scale(value) for value in (1, 2, 4, 8)] == pytest.approx([0, 1, 2, 3])


def test_the_waterfall_says_every_level_and_every_gain():
    frame = pd.DataFrame({"stage": ["float", "quantised", "mixture"], "bpb": [1.5, 1.625, 1.0], "gain": [None, -0.125, 0.625]})
    found = texts(charts.waterfall(frame, "x"))
    assert found == ["1.5000", "float", "+0.1250", "1.6250", "quantised", "\N{MINUS SIGN}0.6250", "1.0000", "mixture"]


def test_bars_are_as_long_as_their_numbers():
    found = charts.bars(["a", "b"], {"blue": [30, 10], "grey": [0, 20]}, ["30", "30"], "x")
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', found)]
    starts = [float(start) for start in re.findall(r'<rect x="([\d.]+)"', found)]
    assert starts[0] == starts[1] and starts[2] == pytest.approx(starts[1] + widths[1], abs=0.2)  # parts side by side
    assert len(widths) == 3 and widths[0] == pytest.approx(sum(widths[1:]), abs=0.2) == pytest.approx(3 * widths[1], abs=0.2)


def test_curves_lift_the_pen_over_missing_values():
    same = charts.scale(0, 1, 0, 1)
    assert charts.path([0, 1, 2, 3], [5, None, 6, 7], same, same, steps=False) == "M0.0 5.0M2.0 6.0L3.0 7.0"
    assert charts.path([0, 1, 2], [5, 6], same, same, steps=True) == "M0.0 5.0H1.0L1.0 6.0H2.0"


def test_words_of_a_chart_are_escaped():
    evil = "<script>&\"'"
    for drawing in (charts.bars([evil], {"blue": [1]}, [evil], evil), charts.strips({evil: [(1.0, evil)]}, evil, evil)):
        assert "<script" not in drawing and evil in texts(drawing)


@pytest.mark.parametrize(
    ("number", "label"), [(0, "0"), (1_400_000, "1.4 M"), (-2500, "\N{MINUS SIGN}2.5 k"), (0.1 + 0.2, "0.3")]
)
def test_axis_labels_are_short(number, label):
    assert charts.short(number) == label
