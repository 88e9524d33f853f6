import io

import matplotlib
import pandas as pd
import pytest
from PIL import Image

from fairway.report import figures

LADDER = pd.DataFrame(
    {
        "stage": ["float", "quantised", "streaming", "TTT", "mixture"],
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
LOSS = pd.DataFrame({"step": [2, 4, 6], "loss": [6.5, 4.0, 2.5]})
ALL = [
    (figures.ladder, LADDER),
    (figures.position, POSITION),
    (figures.documents, DOCUMENTS),
    (figures.savings, SAVINGS),
    (figures.orders, ORDERS),
    (figures.parts, PARTS),
    (figures.loss, LOSS),
]
MINUS = "\N{MINUS SIGN}"


def title(figure):
    return figure.get_suptitle() or figure.axes[0].get_title(loc="left")


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("draw", "frame", "expected"),
    [
        (figures.ladder, LADDER, "1.0000 bits per byte: quantising costs 0.1250, scoring saves 0.6250"),
        (figures.position, POSITION, "TTT saves 0.1875 bits per byte, the mixture saves 0.4375"),  # 3/4 · 0.25; 0.25/4 + 3/8
        (figures.documents, DOCUMENTS, "TTT saves bits in 1 of 2 documents, the mixture in 2"),
        (figures.savings, SAVINGS, f"TTT gains 0.0500 bits per byte in the first quarter, {MINUS}0.0200 in the last"),
        (figures.orders, ORDERS, "The mixture saves 0.2000 bits per byte over the network, most at order 2"),
        (figures.parts, PARTS, "80.0% of the 1,000 bytes are weights"),
        (figures.loss, LOSS, "Training loss falls from 6.50 to 2.50 nats a token in 6 steps"),
    ],
)
def test_title_says_what_the_figure_shows(draw, frame, expected):
    assert title(draw(frame)) == expected


def test_ladder_names_every_level_and_step():
    (axes,) = figures.ladder(LADDER).axes
    steps = ["+0.1250", f"{MINUS}0.3750", f"{MINUS}0.1250", f"{MINUS}0.1250"]
    assert sorted(texts(axes)) == sorted([f"{level:.4f}" for level in LADDER["bpb"]] + steps)
    drawn = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]
    assert drawn == [(1.5, 1.625), (1.625, 1.25), (1.25, 1.125), (1.125, 1.0)]


def test_position_draws_steps_between_the_ends_of_parts():
    above, below = figures.position(POSITION).axes
    assert [line.get_data().edges.tolist() for line in above.patches] == [[0, 100, 400]] * 3
    assert [line.get_data().values.tolist() for line in below.patches] == [[0.0, 0.25], [0.25, 0.5]]


def test_documents_are_as_wide_as_they_are_long_and_in_order():
    above, below = figures.documents(DOCUMENTS).axes
    assert [line.get_data().edges.tolist() for line in above.patches] == [[0, 300, 400]] * 3
    assert above.patches[0].get_data().values.tolist() == [1.25, 1.5]
    assert [line.get_data().values.tolist() for line in below.patches] == [[0.0, 0.5], [0.5, 0.25]]


def test_savings_stand_beside_an_even_rate():
    for axes, kind in zip(figures.savings(SAVINGS).axes, ("ttt", "ngram"), strict=True):
        even, saved = axes.lines
        assert saved.get_ydata().tolist() == SAVINGS[kind].tolist()
        assert even.get_xdata().tolist() == [0, 400] and even.get_ydata().tolist() == [0, SAVINGS[kind].iloc[-1]]


def test_orders_have_bars_that_add_up_to_the_title():
    _, below = figures.orders(ORDERS).axes
    assert [bar.get_height() for bar in below.patches] == [0.00001, 0.3, -0.1]
    assert texts(below) == ["0.0000", "0.3000", f"{MINUS}0.1000"]
    assert [tick.get_text() for tick in below.get_xticklabels()] == ["0\n12.5%", "2\n50.0%", "3\n37.5%"]


def test_a_mixture_that_is_off_can_be_drawn():
    off = pd.DataFrame({"order": [0], "share": [1.0], "bytes": [9], "neural": [1.5], "mixed": [1.5], "saved": [0.0]})
    assert title(figures.orders(off)) == "The mixture saves 0.0000 bits per byte over the network"
    assert figures.png(figures.savings(SAVINGS.assign(ttt=0, ngram=0)))


@pytest.mark.parametrize(("draw", "frame"), [*ALL, (figures.savings, LONG_SAVINGS)])
def test_nothing_is_cut_off(draw, frame):
    image = Image.open(io.BytesIO(figures.png(draw(frame)))).convert("L")
    for left in (0, image.width - 2):
        assert image.crop((left, 0, left + 2, image.height)).getextrema() == (255, 255)


@pytest.mark.parametrize(("draw", "frame"), ALL)
def test_same_input_same_bytes_and_no_version_inside(draw, frame):
    first = figures.png(draw(frame))
    with matplotlib.rc_context({"font.size": 20, "savefig.facecolor": "red", "axes.facecolor": "black"}):
        assert figures.png(draw(frame)) == first  # a user's own settings change nothing
    assert matplotlib.__version__.encode() not in first
    image = Image.open(io.BytesIO(first))
    assert image.width == 1125 and image.text == {}


def test_rungs_of_one_height_can_be_drawn():
    flat = pd.DataFrame({"stage": list("abc"), "bpb": [1.0] * 3, "gain": [float("nan"), 0.0, 0.0]})
    assert figures.png(figures.ladder(flat))
