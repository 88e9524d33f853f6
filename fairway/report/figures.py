"""The report's figures: DataFrame in, matplotlib Figure out, PNG bytes of that.

Figures are built without pyplot, so there is no window, no global state and the same bytes for the same input. Titles
say what the figure shows. Colours are those of Okabe and Ito (2008), told apart with any colour vision; where colour
carries meaning, a label or a sign carries it too.
"""

import io

import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter

INK, GREY = "#222222", "#8a8a8a"
BLUE, ORANGE, GREEN, SKY = "#0072b2", "#d55e00", "#009e73", "#56b4e9"
KINDS = {"streaming": ("streaming", GREY), "ttt": ("TTT", BLUE), "ngram": ("TTT + n-gram", ORANGE)}
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


def _label(axes: Axes, x: float, y: float, text: str, above: bool, **style) -> None:
    alignment = "bottom" if above else "top"
    axes.annotate(text, (x, y), (0, 5 if above else -5), textcoords="offset points", ha="center", va=alignment, **style)


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
    """bpb along the stream, and what is saved over streaming; `frame` has position (bytes), streaming, ttt, ngram."""
    figure, (above, below) = _subplots(7.5, 5.4, rows=2, sharex=True, height_ratios=[3, 2])
    edges = [0, *frame["position"]]
    for kind, (label, colour) in KINDS.items():
        above.stairs(frame[kind], edges, baseline=None, color=colour, linewidth=1.5, label=label)
        if kind != "streaming":
            below.stairs(frame["streaming"] - frame[kind], edges, baseline=None, color=colour, linewidth=1.5)
    above.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 0.98), borderaxespad=0, handlelength=1.4)
    above.set_ylabel("bits per byte")
    below.axhline(0, color=GREY, linewidth=1)
    below.set_ylabel("saved over streaming")
    below.set_xlabel("position in the validation text")
    below.xaxis.set_major_formatter(EngFormatter(unit="B"))
    below.set_xlim(0, edges[-1])
    for axes in (above, below):
        axes.grid(axis="y")
    weights = frame["position"].diff().fillna(frame["position"])
    gains = {kind: ((frame["streaming"] - frame[kind]) * weights).sum() / weights.sum() for kind in ("ttt", "ngram")}
    title = f"TTT {_saves(gains['ttt'])} bits per byte, TTT + n-gram {_saves(gains['ngram'])}"
    above.set_title(title, pad=28)
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
