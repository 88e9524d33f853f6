"""The report's figures: a DataFrame in, a title that says what it shows and a drawing out.

Each draws the table of its name: those of tables.py and breakdown.py, and loss.tsv and matrices.tsv of train and quant.
Colors are those of Okabe and Ito (2008), which people tell apart with any color vision; where color carries meaning, a label
or a sign carries it too.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from fairway.report import charts
from fairway.report.charts import Curve, svg
from fairway.report.labels import LEARNERS, MIXTURE, PER_TOKEN, TTT
from fairway.report.tables import easy_to_hard, gains

ROLE_COLORS = {
    "attention": "blue",
    "feed_forward": "orange",
    "embedding": "green",
    "projection": "sky",
    "fp16": "pink",
    "container": "grey",
}
LEGEND = {score.color: score.name for score in PER_TOKEN}


class Figure(NamedTuple):
    name: str  # of its file, reports/report/NAME.svg
    title: str  # what it shows, in words
    drawing: str  # SVG
    source: str = ""  # the table that it is drawn from, relative to reports/; "" where there is none
    note: str = ""


def ladder(frame: pd.DataFrame) -> Figure:
    levels = frame["bpb"].tolist()
    title = f"Quantizing {saves(levels[0] - levels[1])} bits per byte, scoring {saves(levels[1] - levels[-1])}"
    drawing = svg("bits per byte from the float weights to the mixture", charts.waterfall(frame["stage"].tolist(), levels))
    return Figure("ladder", title, drawing, "report/ladder.tsv", "Bits per byte; the axis does not start at 0.")


def position(frame: pd.DataFrame) -> Figure:
    sizes = frame["position"].diff().fillna(frame["position"])
    saved = gains(frame).mul(sizes, axis=0).sum() / sizes.sum()
    title = f"Along the text TTT {saves(saved['ttt'])} bits per byte, the mixture {saves(saved['ngram'])}"
    drawing = compared(frame, [0, *frame["position"].tolist()], "byte of the validation text")
    return Figure("position", title, drawing, "report/position.tsv")


def documents(frame: pd.DataFrame) -> Figure:
    groups, count = easy_to_hard(frame), int((frame["bytes"] > 0).sum())
    fewer = (gains(frame) > 0).sum()
    title = f"TTT saves bits in {fewer['ttt']:,} of {count:,} documents, the mixture in {fewer['ngram']:,}"
    where = "documents, the easiest first, as wide as they are long (bytes)"
    return Figure("documents", title, compared(groups, [0, *groups["bytes"].cumsum().tolist()], where), "report/documents.tsv")


def compared(frame: pd.DataFrame, edges: list[int], where: str) -> str:
    """Steps between edges (bytes): bits per byte of each score above, what the learners save over streaming below."""
    levels = [Curve(score.color, edges, frame[score.column].tolist()) for score in PER_TOKEN]
    saved = [Curve(score.color, edges, gains(frame)[score.column].tolist()) for score in LEARNERS]
    above = charts.curves(levels, ("", "bits per byte"), steps=True)
    below = charts.curves(saved, (where, "saved over streaming"), steps=True, zero=True)
    return svg(f"bits per byte by {where}, and what is saved", above, below, legend=LEGEND)


def savings(frame: pd.DataFrame) -> Figure:
    """One panel per learner. A curve that runs below the dashed line, which has one slope, learns more and more."""
    x = frame["position"].tolist()
    panels = []
    for score in LEARNERS:
        saved = frame[score.column].tolist()
        even = Curve("grey dashed", [x[0], x[-1]], [saved[0], saved[-1]])
        axes = ("byte of the validation text" if score is LEARNERS[-1] else "", f"bits that {score.name} has saved")
        panels.append(charts.curves([even, Curve(score.color, x, saved)], axes, zero=True))
    quarter = x[-1] / 4
    reached = np.interp([quarter, 3 * quarter, 4 * quarter], x, frame[TTT.column])
    first, last = (charts.signed(gain / quarter) for gain in (reached[0], reached[2] - reached[1]))
    title = f"TTT saves {first} bits per byte in the first quarter, {last} in the last"
    note = "Dashed: the same saving at an even rate."
    return Figure("savings", title, svg("bits saved over streaming up to each position", *panels), "report/savings.tsv", note)


def orders(frame: pd.DataFrame) -> Figure:
    size = frame["bytes"].sum()
    network, saved = (frame["neural"] * frame["bytes"]).sum() / size, frame["saved"] / size
    x = frame["order"].tolist()
    lines = [Curve(s.color, x, frame[c].tolist()) for s, c in ((TTT, "neural"), (MIXTURE, "mixed"))]
    axes = ("order of the longest n-gram whose context was seen before", "bits per byte there")
    shares = [f"{order}\n{share:.1%}" for order, share in zip(x, frame["share"], strict=True)]
    levels = [network, *(network - saved.cumsum()).tolist()]
    drawing = svg(
        "bits per byte of network and mixture by order, and what each order saves",
        charts.curves(lines, axes, dots=True),
        charts.waterfall(["network", *shares], levels),
        legend={TTT.color: f"network ({TTT.name})", MIXTURE.color: MIXTURE.name},
    )
    most = f", most at order {frame['order'][saved.idxmax()]}" if saved.max() > 0 else ""
    note = "Below: from the network to the mixture, with each order's share of the tokens."
    title = f"The mixture {saves(saved.sum())} bits per byte over the network{most}"
    return Figure("orders", title, drawing, "report/orders.tsv", note)


def parts(frame: pd.DataFrame) -> Figure:
    sizes, whole = frame["bytes"].tolist(), frame["bytes"].sum()
    is_weights = frame["part"].str.startswith("weights").tolist()
    split = {"blue": [size * own for size, own in zip(sizes, is_weights, strict=True)]}
    split["grey"] = [size - own for size, own in zip(sizes, split["blue"], strict=True)]
    labels = [part.removeprefix("weights: ") for part in frame["part"]]
    panel = charts.bars(labels, split, [f"{size:,} ({size / whole:.1%})" for size in sizes])
    title = f"{sum(split['blue']) / whole:.1%} of the {whole:,} bytes are weights"
    drawing = svg("bytes of submission.pyz by part", panel, legend={"blue": "weights", "grey": "all else"})
    return Figure("bytes", title, drawing, "report/bytes.tsv")


def layers(frame: pd.DataFrame) -> Figure:
    names: dict[str, list[str]] = {}
    for role in frame.columns.drop(["layer", "weights", "bytes"]):
        names.setdefault(ROLE_COLORS.get(role, "grey"), []).append(role)
    split = {color: frame[roles].sum(axis=1).tolist() for color, roles in names.items()}
    panel = charts.bars(frame["layer"].tolist(), split, [f"{size:,}" for size in frame["bytes"]])
    legend = {color: ", ".join(roles).replace("_", " ") for color, roles in names.items()}
    title = f"By layer: {frame.loc[frame['bytes'].idxmax(), 'layer']} takes most"
    return Figure("layers", title, svg("bytes of the weights by layer and role", panel, legend=legend), "report/layers.tsv")


def loss(frame: pd.DataFrame) -> Figure:
    first, last = frame["loss"].iloc[0], frame["loss"].iloc[-1]
    curve = Curve("blue", frame["step"].tolist(), frame["loss"].tolist())
    panel = charts.curves([curve], ("step", "nats per token (log scale)"), logarithmic=True)
    moves = "falls" if last < first else "rises"
    title = f"Training loss {moves} from {first:.2f} to {last:.2f} nats per token in {frame['step'].iloc[-1]:,} steps"
    return Figure("loss", title, svg("training loss by step", panel), "train/loss.tsv")


def matrices(frame: pd.DataFrame) -> Figure:
    rows: dict[str, list[tuple[float, str]]] = {}
    for row in frame.itertuples():
        rows.setdefault(row.role.replace("_", " "), []).append((row.relative_error, f"{row.name}: {row.relative_error:.4f}"))
    worst, whole = frame.loc[frame["estimated_loss"].idxmax()], frame["estimated_loss"].clip(lower=0).sum()
    share = f"{worst['name']} costs most: {worst['estimated_loss'] / whole:.0%} of the estimated loss" if whole else ""
    drawing = svg("quantization error of every matrix by role", charts.strips(rows, "relative error of a matrix"))
    return Figure("matrices", share or "No loss was estimated", drawing, "report/matrices.tsv")


def seconds(frame: pd.DataFrame) -> Figure:
    clocks, longest = frame["seconds"].tolist(), frame.loc[frame["seconds"].idxmax()]
    notes = [f"{value:,.1f} s ({share:.0%})" for value, share in zip(clocks, frame["share"], strict=True)]
    drawing = svg("seconds of each stage", charts.bars(frame["stage"].tolist(), {"blue": clocks}, notes))
    return Figure("seconds", f"{longest['stage']} takes {longest['share']:.0%} of {sum(clocks):,.0f} seconds", drawing)


def saves(gain: float) -> str:
    return f"{'saves' if gain >= 0 else 'costs'} {abs(gain):.4f}"


def drawn(frames: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    """The figures that are files, by name; `frames` has a table of that name for each."""
    files = {
        "ladder": ladder,
        "position": position,
        "savings": savings,
        "documents": documents,
        "orders": orders,
        "bytes": parts,
        "layers": layers,
        "loss": loss,
        "matrices": matrices,
    }
    return {name: draw(frames[name]) for name, draw in files.items()}
