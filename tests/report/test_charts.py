import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report import charts
from fairway.report.charts import Curve, svg

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def texts(panel):
    """What a drawing of the panel says, read from the file that it is written to."""
    root = ElementTree.fromstring(charts.document(svg("x", panel)))
    return [element.text for element in root.iter() if element.tag.split("}")[1] in ("text", "title")]


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


def test_an_axis_of_ratios_has_round_numbers_at_even_distances():
    assert charts.decades(0.004, 0.3) == pytest.approx([0.005, 0.01, 0.02, 0.05, 0.1, 0.2])
    assert charts.decades(2.4, 6.5) == charts.ticks(2.4, 6.5)


def test_the_waterfall_says_every_level_and_every_gain():
    found = texts(charts.waterfall(["float", "quantized", "mixture"], [1.5, 1.625, 1.0]))
    assert found == ["1.5000", "float", "+0.1250", "1.6250", "quantized", "\N{MINUS SIGN}0.6250", "1.0000", "mixture"]


def test_bars_are_as_long_as_their_numbers():
    found = charts.bars(["a", "b"], {"blue": [30, 10], "grey": [0, 20]}, ["30", "30"])
    found = "".join(found.body)
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
    for panel in (
        charts.bars([evil], {"blue": [1]}, [evil]),
        charts.strips({evil: [(1.0, evil)]}, evil),
        charts.key({"sky": evil}),
    ):
        assert "<script" not in svg(evil, panel, legend={"blue": evil}) and evil in texts(panel)


def test_what_cannot_be_printed_is_shown_as_its_escape():
    assert "a\\x00\\x1b\\u202e" in texts(charts.bars(["a\0\x1b\u202e"], {"blue": [1]}, ["b"]))


@pytest.mark.parametrize(
    ("number", "label"), [(0, "0"), (1_400_000, "1.4 M"), (-2500, "\N{MINUS SIGN}2.5 k"), (0.1 + 0.2, "0.3")]
)
def test_axis_labels_are_short(number, label):
    assert charts.short(number) == label


def test_panels_stand_below_each_other_and_below_the_legend():
    panel = charts.Panel(100, [])
    shifts = re.findall(r"translate\(0 ([\d.]+)\)", svg("x", panel, panel, legend={"blue": "a", "orange": "b"}))
    assert [float(shift) for shift in shifts] == [0, charts.key({"blue": "a"}).height, charts.key({"blue": "a"}).height + 100]


def test_a_long_legend_takes_more_rows():
    names = dict(zip(("blue", "orange", "green"), ("a" * 30, "b" * 30, "c" * 3), strict=True))
    assert charts.key(names).height == charts.key({"blue": "a"}).height + 20


def test_a_file_brings_its_colors_and_its_ground():
    drawing = svg("a chart", charts.curves([Curve("blue", [0, 1], [1, 2])], ("x", "y")))
    content = charts.document(drawing).decode()
    assert (
        "var(" not in content
        and "@import" not in content
        and re.findall(r"http[^\"]*", content) == ["http://www.w3.org/2000/svg"]
    )
    root = ElementTree.fromstring(content)
    style, ground = list(root)[:2]
    used = {name for element in root.iter() for name in element.get("class", "").split()}
    assert used and all(f".{name}{{" in style.text for name in used)
    assert ground.get("class") == "ground" and "prefers-color-scheme:dark" in style.text
    left, top, width, height = map(float, root.get("viewBox").split())
    assert (float(ground.get("x")), float(ground.get("y"))) == (left, top)
    assert (float(root.get("width")), float(root.get("height"))) == (width, height)


@pytest.mark.parametrize(
    "curves",
    [[Curve("blue", [0, 1, 2], [1.0, None, 3.0])], [Curve("blue", [3], [1.0]), Curve("grey dashed", [3, 4], [1.0, 1.0])]],
)
def test_points_are_marked_where_there_are_any(curves):
    found = "".join(charts.curves(curves, ("x", "y"), dots=True).body)
    assert found.count("<circle") == sum(value is not None for curve in curves for value in curve.y)
