import io

import matplotlib
import pandas as pd
import pytest
from PIL import Image

from fairway.report import figures

LADDER = pd.DataFrame(
    {
        "stage": ["float", "quantised", "streaming", "TTT", "n-gram"],
        "bpb": [1.5, 1.625, 1.25, 1.125, 1.0],
        "gain": [float("nan"), -0.125, 0.375, 0.125, 0.125],
    }
)
POSITION = pd.DataFrame({"position": [100, 400], "streaming": [1.5, 1.25], "ttt": [1.5, 1.0], "ngram": [1.25, 0.75]})
PARTS = pd.DataFrame({"part": ["code", "weights: matrices", "weights: header"], "bytes": [200, 790, 10]})
LOSS = pd.DataFrame({"step": [2, 4, 6], "loss": [6.5, 4.0, 2.5]})
ALL = [(figures.ladder, LADDER), (figures.position, POSITION), (figures.parts, PARTS), (figures.loss, LOSS)]


def title(figure):
    return figure.get_suptitle() or figure.axes[0].get_title(loc="left")


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize(
    ("draw", "frame", "expected"),
    [
        (figures.ladder, LADDER, "1.0000 bits per byte: quantising costs 0.1250, scoring saves 0.6250"),
        (figures.position, POSITION, "TTT saves 0.1875 bits per byte, TTT + n-gram saves 0.4375"),  # 3/4 · 0.25; 0.25/4 + 3/8
        (figures.parts, PARTS, "80.0% of the 1,000 bytes are weights"),
        (figures.loss, LOSS, "Training loss falls from 6.50 to 2.50 nats a token in 6 steps"),
    ],
)
def test_title_says_what_the_figure_shows(draw, frame, expected):
    assert title(draw(frame)) == expected


def test_ladder_names_every_level_and_step():
    (axes,) = figures.ladder(LADDER).axes
    minus = "\N{MINUS SIGN}"
    steps = ["+0.1250", f"{minus}0.3750", f"{minus}0.1250", f"{minus}0.1250"]
    assert sorted(texts(axes)) == sorted([f"{level:.4f}" for level in LADDER["bpb"]] + steps)
    drawn = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]
    assert drawn == [(1.5, 1.625), (1.625, 1.25), (1.25, 1.125), (1.125, 1.0)]


def test_position_draws_steps_between_the_ends_of_parts():
    above, below = figures.position(POSITION).axes
    assert [line.get_data().edges.tolist() for line in above.patches] == [[0, 100, 400]] * 3
    assert [line.get_data().values.tolist() for line in below.patches] == [[0.0, 0.25], [0.25, 0.5]]


@pytest.mark.parametrize(("draw", "frame"), ALL)
def test_same_input_same_bytes_and_no_version_inside(draw, frame):
    first = figures.png(draw(frame))
    with matplotlib.rc_context({"font.size": 20, "savefig.facecolor": "red", "axes.facecolor": "black"}):
        assert figures.png(draw(frame)) == first  # a user's own settings change nothing
    assert matplotlib.__version__.encode() not in first
    image = Image.open(io.BytesIO(first))
    assert image.width == 1125 and image.text == {}
    edge = image.convert("L").crop((image.width - 2, 0, image.width, image.height))
    assert edge.getextrema() == (255, 255)  # nothing is cut off at the right


def test_rungs_of_one_height_can_be_drawn():
    flat = pd.DataFrame({"stage": list("abc"), "bpb": [1.0] * 3, "gain": [float("nan"), 0.0, 0.0]})
    assert figures.png(figures.ladder(flat))
