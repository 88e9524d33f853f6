import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from fairway.report import charts, figures

LADDER = pd.DataFrame(
    {
        "stage": ["float", "quantized", "streaming", "TTT", "mixture"],
        "bpb": [1.5, 1.625, 1.25, 1.125, 1.0],
        "gain": [float("nan"), -0.125, 0.375, 0.125, 0.125],
    }
)
POSITION = pd.DataFrame({"position": [100, 400], "streaming": [1.5, 1.25], "ttt": [1.5, 1.0], "ngram": [1.25, 0.75]})
SAVINGS = pd.DataFrame({"position": [0, 100, 200, 300, 400], "ttt": [0, 5, 25, 30, 28], "ngram": [0, 10, 20, 30, 40]})
LONG_SAVINGS = pd.DataFrame({"position": [0, 228_853, 457_702], "ttt": [0.0, 450.0, 1377.0], "ngram": [0.0, 5300.0, 13363.0]})
DOCUMENTS = pd.DataFrame(
    {
        "document": [1, 2, 3],
        "bytes": [100, 0, 300],
        "streaming": [1.5, float("nan"), 1.25],
        "ttt": [1.0, float("nan"), 1.25],
        "ngram": [1.25, float("nan"), 0.75],
    }
)
ORDERS = pd.DataFrame(
    {
        "order": [0, 2, 3],
        "share": [0.125, 0.5, 0.375],
        "bytes": [0, 600, 400],
        "neural": [float("nan"), 1.5, 1.25],
        "mixed": [float("nan"), 1.0, 1.5],
        "saved": [0.01, 300, -100],
    }
)
PARTS = pd.DataFrame({"part": ["code", "weights: matrices", "weights: header"], "bytes": [200, 790, 10]})
LAYERS = pd.DataFrame({"layer": ["block 0", "lm_head"], "weights": [9, 9], "bytes": [5, 8], "attention": [5, 0], "new": [0, 8]})
MATRICES = pd.DataFrame({"name": ["a", "b"], "role": ["x", "x"], "relative_error": [0.1, 0.2], "estimated_loss": [3.0, 1.0]})
SECONDS = pd.DataFrame({"stage": ["train", "certify"], "seconds": [30.0, 10.0], "share": [0.75, 0.25]})
LOSS = pd.DataFrame({"step": [2, 4, 6], "loss": [6.5, 4.0, 2.5]})
MINUS = "\N{MINUS SIGN}"
ALL = [
    (figures.ladder, LADDER, "Quantizing costs 0.1250 bits per byte, scoring saves 0.6250"),
    # 3/4 · 0.25; 0.25/4 + 3/8
    (figures.position, POSITION, "Along the text TTT saves 0.1875 bits per byte, the mixture saves 0.4375"),
    (figures.documents, DOCUMENTS, "TTT saves bits in 1 of 2 documents, the mixture in 2"),
    (figures.savings, SAVINGS, f"TTT saves +0.0500 bits per byte in the first quarter, {MINUS}0.0200 in the last"),
    (figures.orders, ORDERS, "The mixture saves 0.2000 bits per byte over the network, most at order 2"),
    (figures.parts, PARTS, "80.0% of the 1,000 bytes are weights"),
    (figures.layers, LAYERS, "By layer: lm_head takes most"),
    (figures.loss, LOSS, "Training loss falls from 6.50 to 2.50 nats per token in 6 steps"),
    (figures.matrices, MATRICES, "a costs most: 75% of the estimated loss"),
    (figures.seconds, SECONDS, "train takes 75% of 40 seconds"),
]


def texts(figure: figures.Figure) -> list[str]:
    return re.findall(r"<text [^>]*>([^<]+)<", figure.drawing)


def paths(figure: figures.Figure) -> list[tuple[str, list[float], list[float]]]:
    """The class of every curve, the x of its corners from 0 to 1, and the y of its corners in pixels."""
    found = []
    for path, kind in re.findall(r'<path d="([^"]+)" class="line ([^"]+)"', figure.drawing):
        corners = re.findall(r"[ML]([\d.]+) ([\d.]+)", path)
        ends = re.findall(r"H([\d.]+)", path)
        x = [float(x) for x, _ in corners] + [float(x) for x in ends[-1:]]
        span = charts.WIDTH - charts.RIGHT - charts.LEFT
        found.append((kind, [(value - charts.LEFT) / span for value in x], [float(y) for _, y in corners]))
    return found


@pytest.mark.parametrize(("draw", "frame", "expected"), ALL)
def test_title_says_what_the_figure_shows(draw, frame, expected):
    assert draw(frame).title == expected


def test_ladder_names_every_level_and_step():
    figure = figures.ladder(LADDER)
    steps = ["+0.1250", f"{MINUS}0.3750", f"{MINUS}0.1250", f"{MINUS}0.1250"]
    assert sorted(texts(figure)) == sorted([f"{level:.4f}" for level in LADDER["bpb"]] + steps + LADDER["stage"].tolist())
    heights = [float(height) for height in re.findall(r'<rect [^>]*height="([\d.]+)" class="fill soft', figure.drawing)]
    assert [height / sum(heights) for height in heights] == pytest.approx([1 / 6, 1 / 2, 1 / 6, 1 / 6], abs=0.01)
    colors = re.findall(r'class="fill soft (\w+)"', figure.drawing)
    assert colors == ["orange", "green", "green", "green"]


def test_position_draws_steps_between_the_ends_of_parts():
    found = paths(figures.position(POSITION))
    assert [kind for kind, *_ in found] == ["grey", "blue", "orange", "blue", "orange"]
    assert all(x == pytest.approx([0, 0.25, 1], abs=0.01) for _, x, _ in found)
    streaming, ttt, mixture, ttt_saves, mixture_saves = (y for *_, y in found)
    assert streaming[0] == ttt[0] < mixture[0] == streaming[1] < ttt[1] < mixture[1]  # y grows downward
    assert ttt_saves[0] > ttt_saves[1] == mixture_saves[0] > mixture_saves[1]


def test_documents_are_as_wide_as_they_are_long_and_in_order():
    found = paths(figures.documents(DOCUMENTS))
    assert all(x == pytest.approx([0, 0.75, 1], abs=0.01) for _, x, _ in found)
    streaming, ttt, _, ttt_saves, mixture_saves = (y for *_, y in found)
    assert streaming[0] > streaming[1] and ttt[0] == streaming[0] < ttt[1]
    assert ttt_saves[0] > mixture_saves[1] > ttt_saves[1] == mixture_saves[0]


def test_savings_stand_beside_an_even_rate():
    found = paths(figures.savings(SAVINGS))
    assert [kind for kind, *_ in found] == ["grey dashed", "blue", "grey dashed", "orange"]
    for (_, even_x, even_y), (_, x, y) in zip(found[::2], found[1::2], strict=True):
        assert even_x == [0, 1] and even_y == [y[0], y[-1]]
        assert x == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=0.01)
    even, saved = found[2][2], found[3][2]
    assert saved == pytest.approx([even[0] + (even[1] - even[0]) * part for part in (0, 0.25, 0.5, 0.75, 1)], abs=0.2)


def test_orders_have_bars_that_add_up_to_the_title():
    figure = figures.orders(ORDERS)
    said = texts(figure)
    assert [text for text in said if text[0] in f"+{MINUS}"] == ["+0.0000", f"{MINUS}0.3000", "+0.1000"]
    assert {"network", "0", "12.5%", "2", "50.0%", "3", "37.5%"} <= set(said)
    assert {"1.4000", "1.2000"} <= set(said)  # network and mixture: 0.6 · 1.5 + 0.4 · 1.25 − 0.2
    assert figure.drawing.count("<circle") == 4  # two orders have bytes


def test_a_mixture_that_is_off_can_be_drawn():
    off = pd.DataFrame({"order": [0], "share": [1.0], "bytes": [9], "neural": [1.5], "mixed": [1.5], "saved": [0.0]})
    assert figures.orders(off).title == "The mixture saves 0.0000 bits per byte over the network"
    assert figures.savings(SAVINGS.assign(ttt=0, ngram=0)).drawing


@pytest.mark.parametrize(("draw", "frame"), [*(case[:2] for case in ALL), (figures.savings, LONG_SAVINGS)])
def test_nothing_is_cut_off(draw, frame):
    """Whatever is drawn, letters of the narrow page's width included, lies within the drawing and its margin."""
    root = ElementTree.fromstring(charts.document(draw(frame).drawing))
    left, top, width, height = map(float, root.get("viewBox").split())
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        shift = float(group.get("transform").split()[1].rstrip(")"))
        for element in group:
            length = charts.LETTER * 0.9 * len(element.text or "") if element.tag.endswith("text") else 0
            before = length * {"middle": 0.5, "end": 1}.get(element.get("text-anchor"), 0)
            x = [float(element.get(name)) for name in ("x", "x1", "x2", "cx") if element.get(name)]
            y = [float(element.get(name)) + shift for name in ("y", "y1", "y2", "cy") if element.get(name)]
            x += [x[0] + float(element.get("width"))] if element.get("width") else []
            x += map(float, re.findall(r"[MLH]([-\d.]+)", element.get("d", "")))
            y += (float(value) + shift for value in re.findall(r"[ML][-\d.]+ ([-\d.]+)", element.get("d", "")))
            assert all(left <= value - before and value - before + length <= left + width for value in x), element.attrib
            assert all(top <= value <= top + height for value in y), element.attrib


@pytest.mark.parametrize(("draw", "frame"), [case[:2] for case in ALL])
def test_same_input_same_bytes(draw, frame):
    assert draw(frame) == draw(frame.copy())


def test_steps_of_one_height_can_be_drawn():
    flat = pd.DataFrame({"stage": list("abc"), "bpb": [1.0] * 3, "gain": [float("nan"), 0.0, 0.0]})
    assert figures.ladder(flat).drawing


def test_every_file_has_the_name_of_its_table():
    frames = {"ladder": LADDER, "position": POSITION, "savings": SAVINGS, "documents": DOCUMENTS, "orders": ORDERS}
    frames |= {"bytes": PARTS, "layers": LAYERS, "loss": LOSS, "matrices": MATRICES}
    assert {name: figure.name for name, figure in figures.drawn(frames).items()} == {name: name for name in frames}
