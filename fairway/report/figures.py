"""The report's figures: DataFrame in, matplotlib Figure out, PNG bytes of that.

Figures are built without pyplot, so there is no window, no global state and the same bytes for the same input. Titles
say what the figure shows. Colours are those of Okabe and Ito (2008), told apart with any colour vision; where colour
carries meaning, a label or a sign carries it too.
"""

import io

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, MaxNLocator

from fairway.report.tables import LEARNERS, easy_to_hard

INK, GREY = "#222222", "#8a8a8a"
BLUE, ORANGE, GREEN, SKY = "#0072b2", "#d55e00", "#009e73", "#56b4e9"
KINDS = {"streaming": ("streaming", GREY), "ttt": ("TTT", BLUE), "ngram": ("mixture", ORANGE)}
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": 10,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
STYLED = style.context(["default", STYLE])  # whatever a user's matplotlibrc says


@STYLED
def png(figure: Figure) -> bytes:
    """The figure as PNG at 150 dots an inch, without the version of matplotlib in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def _subplots(width: float, height: float, rows: int = 1, **arrangement) -> tuple[Figure, list[Axes]]:
    """Size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False, **arrangement)[:, 0]
    return figure, list(axes)


def _ruled(axes: Axes) -> None:
    """Horizontal lines, in a number that does not depend on the height: then the layout knows how wide their labels are."""
    axes.yaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 2.5, 5, 10]))
    axes.grid(axis="y")


def _label(axes: Axes, x: float, y: float, text: str, above: bool, **style) -> None:
    alignment = "bottom" if above else "top"
    axes.annotate(text, (x, y), (0, 5 if above else -5), textcoords="offset points", ha="center", va=alignment, **style)


def _signed(gain: float) -> str:
    return f"{round(gain, 4) + 0:.4f}".replace("-", "\N{MINUS SIGN}")  # + 0: no minus before 0.0000


def _saves(gain: float) -> str:
    return f"{'saves' if gain >= 0 else 'costs'} {abs(gain):.4f}"


@STYLED
def ladder(frame: pd.DataFrame) -> Figure:
    """Waterfall of the rungs; `frame` has stage, bpb and gain, in order."""
    figure, (axes,) = _subplots(7.5, 4.2)
    levels = frame["bpb"].tolist()
    span = max(levels) - min(levels) or 1e-3
    for index, (level, gain) in enumerate(zip(levels, frame["gain"], strict=True)):
        if index:
            before = levels[index - 1]
            axes.bar(index, level - before, 0.56, bottom=before, color=GREEN if gain >= 0 else ORANGE, alpha=0.35)
            axes.hlines(before, index - 0.72, index - 0.28, color=GREY, linewidth=0.8)
            _label(axes, index, before, f"{-gain:+.4f}".replace("-", "\N{MINUS SIGN}"), above=gain > 0)
        axes.hlines(level, index - 0.28, index + 0.28, color=INK, linewidth=2.5)
        _label(axes, index, level, f"{level:.4f}", above=not gain > 0, weight="bold")
    axes.set_ylim(min(levels) - 0.2 * span, max(levels) + 0.2 * span)
    axes.set_xticks(range(len(levels)), frame["stage"])
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel("bits per byte (axis does not start at 0)")
    axes.grid(axis="y")
    scoring = _saves(levels[1] - levels[-1])
    axes.set_title(f"{levels[-1]:.4f} bits per byte: quantising {_saves(levels[0] - levels[1])}, scoring {scoring}")
    return figure


@STYLED
def position(frame: pd.DataFrame) -> Figure:
    """bpb along the stream, and what is saved over streaming; `frame` as made by tables.by_position."""
    weights = frame["position"].diff().fillna(frame["position"])
    gains = {kind: ((frame["streaming"] - frame[kind]) * weights).sum() / weights.sum() for kind in LEARNERS}
    title = f"TTT {_saves(gains['ttt'])} bits per byte, the mixture {_saves(gains['ngram'])}"
    return _compared(frame, [0, *frame["position"]], "position in the validation text", title)


@STYLED
def documents(frame: pd.DataFrame) -> Figure:
    """bpb of documents as wide as they are long, the easiest first; `frame` as made by tables.by_document."""
    groups, count = easy_to_hard(frame), int((frame["bytes"] > 0).sum())
    saved = {kind: int((frame["streaming"] > frame[kind]).sum()) for kind in LEARNERS}
    title = f"TTT saves bits in {saved['ttt']:,} of {count:,} documents, the mixture in {saved['ngram']:,}"
    where = "documents, from the easiest to the hardest for streaming, in bytes"
    return _compared(groups, [0, *groups["bytes"].cumsum()], where, title)


def _compared(frame: pd.DataFrame, edges: list[int], where: str, title: str) -> Figure:
    """Decoder between edges (bytes): above bpb of each kind, below what is saved over streaming."""
    figure, (above, below) = _subplots(7.5, 5.4, rows=2, sharex=True, height_ratios=[3, 2])
    for kind, (label, colour) in KINDS.items():
        above.stairs(frame[kind], edges, baseline=None, color=colour, linewidth=1.5, label=label)
        if kind != "streaming":
            below.stairs(frame["streaming"] - frame[kind], edges, baseline=None, color=colour, linewidth=1.5)
    above.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 0.98), borderaxespad=0, handlelength=1.4)
    above.set_ylabel("bits per byte")
    below.axhline(0, color=GREY, linewidth=1)
    below.set_ylabel("saved over streaming")
    below.set_xlabel(where)
    below.xaxis.set_major_formatter(EngFormatter(unit="B"))
    below.set_xlim(0, edges[-1])
    _ruled(above)
    _ruled(below)
    above.set_title(title, pad=28)
    return figure


@STYLED
def savings(frame: pd.DataFrame) -> Figure:
    """Bits saved over streaming up to each position, a learner a panel; `frame` as made by tables.savings.

    The dashed line has the same end and one slope: a curve that runs below it learns more and more.
    """
    figure, panels = _subplots(7.5, 5.4, rows=2, sharex=True)
    position = frame["position"]
    for axes, kind in zip(panels, LEARNERS, strict=True):
        (label, colour), saved = KINDS[kind], frame[kind]
        axes.plot(position.iloc[[0, -1]], saved.iloc[[0, -1]], color=GREY, linewidth=1, linestyle="--")
        axes.plot(position, saved, color=colour, linewidth=1.5)
        axes.set_ylabel(f"{label} has saved")
        axes.yaxis.set_major_formatter(EngFormatter(unit="bit"))
        _ruled(axes)
    panels[-1].set_xlabel("position in the validation text (dashed: at an even rate)")
    panels[-1].xaxis.set_major_formatter(EngFormatter(unit="B"))
    panels[-1].set_xlim(0, position.iloc[-1])
    quarter = position.iloc[-1] / 4
    reached = np.interp([quarter, 3 * quarter, 4 * quarter], position, frame["ttt"])
    first, last = reached[0] / quarter, (reached[2] - reached[1]) / quarter
    panels[0].set_title(f"TTT gains {_signed(first)} bits per byte in the first quarter, {_signed(last)} in the last")
    return figure


@STYLED
def orders(frame: pd.DataFrame) -> Figure:
    """bpb of network and mixture by order, and each order's part of the saving; `frame` as made by tables.by_order."""
    figure, (above, below) = _subplots(7.5, 5.4, rows=2, sharex=True, height_ratios=[3, 2])
    places, saved = range(len(frame)), frame["saved"] / frame["bytes"].sum()
    for column, label, colour in (("neural", "network", BLUE), ("mixed", "mixture", ORANGE)):
        above.plot(places, frame[column], "o-", color=colour, linewidth=1.5, markersize=5, label=label)
    above.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.98), borderaxespad=0, handlelength=1.4)
    above.set_ylabel("bits per byte there")
    below.bar(places, saved, 0.56, color=[GREEN if gain >= 0 else ORANGE for gain in saved], alpha=0.35)
    for place, gain in zip(places, saved, strict=True):
        _label(below, place, gain, _signed(gain), above=gain >= 0)
    below.margins(y=0.25)
    below.axhline(0, color=GREY, linewidth=1)
    below.set_ylabel("saved (bars add up)")
    ticks = [f"{order}\n{share:.1%}" for order, share in zip(frame["order"], frame["share"], strict=True)]
    below.set_xticks(places, ticks)
    below.set_xlabel("order of the longest n-gram whose context was seen before, and its share of the tokens")
    for axes in (above, below):
        axes.tick_params(axis="x", length=0)
        _ruled(axes)
    most = f", most at order {frame['order'][saved.idxmax()]}" if saved.max() > 0 else ""
    above.set_title(f"The mixture {_saves(saved.sum())} bits per byte over the network{most}", pad=28)
    return figure


@STYLED
def parts(frame: pd.DataFrame) -> Figure:
    """Bytes of the submission by part; `frame` has part and bytes."""
    figure, (axes,) = _subplots(7.5, 1.1 + 0.38 * len(frame))
    whole = frame["bytes"].sum()
    is_weights = frame["part"].str.startswith("weights")
    bars = axes.barh(frame["part"], frame["bytes"], 0.62, color=[BLUE if own else GREY for own in is_weights])
    axes.bar_label(bars, [f"{size:,}  ({size / whole:.1%})" for size in frame["bytes"]], padding=5)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.4 * frame["bytes"].max())
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    share = frame.loc[is_weights, "bytes"].sum() / whole
    figure.suptitle(f"{share:.1%} of the {whole:,} bytes are weights", x=0.01, ha="left", weight="bold", size=11.5)
    return figure


@STYLED
def loss(frame: pd.DataFrame) -> Figure:
    """Training loss; `frame` has step and loss (nats a token)."""
    figure, (axes,) = _subplots(7.5, 3.8)
    first, last = frame["loss"].iloc[0], frame["loss"].iloc[-1]
    axes.plot(frame["step"], frame["loss"], color=BLUE, linewidth=1.2)
    axes.annotate(f"{last:.3f}", (frame["step"].iloc[-1], last), (6, 0), textcoords="offset points", va="center", weight="bold")
    axes.set_yscale("log")  # the end of training has as much room as its first steps
    for ticks in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        ticks(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token (log scale)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(axis="y", which="both")
    steps = f"{frame['step'].iloc[-1]:,} steps"
    axes.set_title(
        f"Training loss {'falls' if last < first else 'rises'} from {first:.2f} to {last:.2f} nats a token in {steps}"
    )
    return figure
