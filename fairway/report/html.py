"""reports/index.html: the whole report in one file that opens from disk, light and dark, without network or script.

From tables, the certificate, clocks and passages to one string; the same input gives the same bytes. In the order of asking:
the score and whether it may be believed, how it came about, where the bytes went, what the score is made of, what the text
looks like to the predictor, how long it took and with which params. Whatever comes from data is escaped.
"""

from html import escape

import pandas as pd

from fairway.report import charts, style
from fairway.report.charts import minus
from fairway.report.markup import coded, figure, fold, link, table
from fairway.report.page import MEANING, byte_rows, known, signed
from fairway.report.passages import Passage
from fairway.report.tables import LEARNERS, easy_to_hard

NAMES = {"streaming": "streaming", "ttt": "TTT", "ngram": "mixture"}
COLOURS = {"streaming": "grey", "ttt": "blue", "ngram": "orange"}
ROLE_COLOURS = {
    "attention": "blue",
    "feed_forward": "orange",
    "embedding": "green",
    "projection": "sky",
    "small": "pink",
    "container": "grey",
}
HEAD = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,'
    'initial-scale=1"><link rel="icon" href="data:,">'
)


def index(
    summary: dict,
    frames: dict[str, pd.DataFrame],
    certificate: dict,
    extremes: tuple[list[Passage], list[Passage]],
    changes: pd.DataFrame | None,
) -> str:
    """The page.

    `frames` are the tables of tables.py by the names of their files, with `loss` (reports/train/loss.tsv), `layers`
    and `seconds` (breakdown.py) and `matrices` (reports/quant/matrices.tsv); `extremes` as made by passages.extremes;
    `changes` by breakdown.changed, None where there is nothing to compare with.
    """
    blocks = [
        headline(summary, frames["documents"]),
        certified(certificate),
        ladder(frames["ladder"]),
        where_the_bytes_go(frames["bytes"], frames["layers"]),
        along_the_text(frames["position"], frames["savings"]),
        by_document(frames["documents"]),
        by_order(frames["orders"]),
        texts(*extremes),
        training(frames["loss"]),
        quantisation(frames["matrices"]),
        clocks(frames["seconds"]),
        params(changes),
    ]
    head = f"{HEAD}<title>{summary['val_bpb']:.4f} bits per byte</title><style>{style.sheet()}</style></head>"
    return "\n".join([head, "<body>", *blocks, "</body></html>\n"])


def headline(summary: dict, documents: pd.DataFrame) -> str:
    size = summary["artifact_bytes"]
    budget = size + summary["headroom_bytes"]
    count = len(documents)
    return (
        f"<h1>Fairway report</h1>"
        f'<p class="score">{summary["val_bpb"]:.4f} <small>bits per byte</small></p>'
        f"<p>on {documents['bytes'].sum():,} bytes of validation text ({count:,} document{'s' * (count != 1)}), with a "
        f"submission of <b>{size:,} bytes</b> ({size / budget:.1%} of the budget of {budget:,}) and "
        f"{summary['parameters']:,} parameters, {summary['bits_per_weight']:.3f} bits a weight.</p>"
    )


def certified(certificate: dict) -> str:
    """Legal or not and why, the four conditions, and every claim."""
    claims = certificate["claims"]
    if certificate["legal"]:
        verdict = (
            f'<p><span class="yes">Legal</span>: all {len(claims)} claims of the certificate hold; '
            f"{certificate['certified_tokens']:,} of {certificate['val_tokens']:,} tokens were coded and decoded bit for bit."
            "</p>"
        )
    else:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in certificate["reasons"])
        verdict = f'<p><span class="no">Not legal</span>. The certificate refuses:</p><ul>{reasons}</ul>'
    conditions = "".join(f"<li>{holds(held)} {escape(name)}</li>" for name, held in certificate["conditions"].items())
    rows = [[c["condition"], c["claim"], c["amount"], holds(c["passed"]), c["result"], c["how"]] for c in claims]
    header = ["condition", "claim", "on how much", "holds", "result", "how"]
    return (
        f'{verdict}<ul class="conditions">{conditions}</ul>'
        f"<details{'' if certificate['legal'] else ' open'}><summary>All {len(claims)} claims</summary>"
        f"{table(header, rows, markup=(3,), wide=(1, 4, 5))}</details>"
        f"<p>With clocks, digests and the command that decodes the text: {link('report/certificate.md')}.</p>"
    )


def holds(passed: bool) -> str:
    return '<span class="yes">✓</span>' if passed else '<span class="no">✗</span>'


def ladder(frame: pd.DataFrame) -> str:
    levels = frame["bpb"].tolist()
    title = f"Quantising {saves(levels[0] - levels[1])} bits per byte, scoring {saves(levels[1] - levels[-1])}"
    rows = [[row.stage, coded(MEANING[row.stage]), f"{row.bpb:.4f}", signed(row.gain)] for row in frame.itertuples()]
    drawing = charts.waterfall(frame, "bits per byte from the float weights to the mixture")
    return (
        f"<h2>The ladder</h2>{figure(title, drawing, 'report/ladder.tsv', note='Bits per byte; the axis does not start at 0.')}"
        f"{table(['rung', 'what it is', 'bpb', 'saves'], rows, numbers=(2, 3), markup=(1,), wide=(1,), total=True)}"
    )


def where_the_bytes_go(parts: pd.DataFrame, layers: pd.DataFrame) -> str:
    whole = parts["bytes"].sum()
    weights = parts.loc[parts["part"].str.startswith("weights"), "bytes"].sum()
    notes = [f"{size:,} ({size / whole:.1%})" for size in parts["bytes"]]
    colours = {"blue": parts["bytes"].where(parts["part"].str.startswith("weights"), 0).tolist()}
    colours["grey"] = [size - of_weights for size, of_weights in zip(parts["bytes"], colours["blue"], strict=True)]
    labels = [part.removeprefix("weights: ") for part in parts["part"]]
    rows = [[cell.replace("**", "") for cell in row] for row in byte_rows(parts)]
    header = ["part", "bytes", "share", "weights", "bits per weight"]
    return (
        "<h2>Where the bytes go</h2>"
        + figure(
            f"{weights / whole:.1%} of the {whole:,} bytes are weights",
            charts.bars(labels, colours, notes, "bytes of submission.pyz by part"),
            "report/bytes.tsv",
            legend={"blue": "weights", "grey": "all else"},
        )
        + table(header, rows, numbers=(1, 2, 3, 4), total=True)
        + by_layer(layers)
    )


def by_layer(layers: pd.DataFrame) -> str:
    roles = [role for role in layers if role not in ("layer", "weights", "bytes")]
    colours = {ROLE_COLOURS.get(role, "grey"): role.replace("_", " ") for role in roles}
    parts: dict[str, list[int]] = {}
    for role in roles:
        colour = ROLE_COLOURS.get(role, "grey")
        parts[colour] = [a + b for a, b in zip(parts.get(colour, [0] * len(layers)), layers[role].tolist(), strict=True)]
    notes = [f"{size:,}" for size in layers["bytes"]]
    largest = layers.loc[layers["bytes"].idxmax(), "layer"]
    rows = [
        [row.layer, f"{row.bytes:,}", f"{row.weights:,}", f"{8 * row.bytes / row.weights:.3f}" if row.weights else ""]
        for row in layers.itertuples()
    ]
    return figure(
        f"By layer: {largest} takes most",
        charts.bars(layers["layer"].tolist(), parts, notes, "bytes of the weights by layer and role"),
        "compress/roles.tsv",
        legend=colours,
    ) + fold("By layer, in numbers", table(["layer", "bytes", "weights", "bits per weight"], rows, numbers=(1, 2, 3)))


def along_the_text(position: pd.DataFrame, savings: pd.DataFrame) -> str:
    sizes = position["position"].diff().fillna(position["position"])
    gains = {kind: ((position["streaming"] - position[kind]) * sizes).sum() / sizes.sum() for kind in LEARNERS}
    title = f"Along the text TTT {saves(gains['ttt'])} bits per byte, the mixture {saves(gains['ngram'])}"
    saved = {COLOURS[kind]: (savings["position"].tolist(), savings[kind].tolist()) for kind in LEARNERS}
    where = "byte of the validation text"
    learning = charts.curves(saved, "bits saved so far", (where, "bits saved over streaming"), zero=True)
    return (
        "<h2>Along the text</h2>"
        + compared(position, [0, *position["position"].tolist()], where, title, "report/position.tsv")
        + figure(
            "A straight line learns at an even rate, a steeper one more and more",
            learning,
            "report/savings.tsv",
            legend={COLOURS[kind]: NAMES[kind] for kind in LEARNERS},
        )
    )


def by_document(documents: pd.DataFrame) -> str:
    groups, count = easy_to_hard(documents), int((documents["bytes"] > 0).sum())
    fewer = {kind: int((documents["streaming"] > documents[kind]).sum()) for kind in LEARNERS}
    title = f"TTT saves bits in {fewer['ttt']:,} of {count:,} documents, the mixture in {fewer['ngram']:,}"
    edges = [0, *groups["bytes"].cumsum().tolist()]
    where = "documents, the easiest first, as wide as they are long (bytes)"
    return "<h2>Document by document</h2>" + compared(groups, edges, where, title, "report/documents.tsv")


def compared(frame: pd.DataFrame, edges: list[int], where: str, title: str, source: str) -> str:
    """Decoder between edges (bytes): bits per byte of each kind of score, and what the learners save."""
    levels = {COLOURS[kind]: (edges, frame[kind].tolist()) for kind in NAMES}
    gains = {COLOURS[kind]: (edges, (frame["streaming"] - frame[kind]).tolist()) for kind in LEARNERS}
    drawings = charts.curves(levels, f"bits per byte by {where}", ("", "bits per byte"), steps=True)
    drawings += charts.curves(gains, f"saved by {where}", (where, "saved over streaming"), steps=True, zero=True)
    return figure(title, drawings, source, legend={COLOURS[kind]: name for kind, name in NAMES.items()})


def by_order(orders: pd.DataFrame) -> str:
    saved = orders["saved"].sum() / orders["bytes"].sum()
    x = orders["order"].tolist()
    drawing = charts.curves(
        {"blue": (x, orders["neural"].tolist()), "orange": (x, orders["mixed"].tolist())},
        "bits per byte of network and mixture by order",
        ("order of the longest n-gram whose context was seen before", "bits per byte there"),
    )
    rows = [
        [str(row.order), f"{row.tokens:,}", f"{row.share:.1%}", known(row.neural), known(row.mixed), minus(f"{row.saved:,.0f}")]
        for row in orders.itertuples()
    ]
    header = ["order", "tokens", "share", "TTT", "mixture", "bits saved"]
    title = f"The mixture {saves(saved)} bits per byte over the network"
    return (
        f"<h2>What the mixture adds</h2>"
        f"{figure(title, drawing, 'report/orders.tsv', legend={'blue': 'network (TTT)', 'orange': 'mixture'})}"
        f"{table(header, rows, numbers=range(6))}"
    )


def texts(easiest: list[Passage], hardest: list[Passage]) -> str:
    """The passages, each token coloured by its bits."""
    borders = ["0", *map(str, style.BITS)]
    legend = "".join(
        f'<i class="b{shade}">{low}{f"–{borders[shade + 1]}" if shade + 1 < style.SHADES else " and more"}</i>'
        for shade, low in enumerate(borders)
    )
    blocks = [
        "<h2>What is easy and what is hard</h2>",
        "<p>Passages of about 400 bytes; a token's colour is its bits after mixing. Rest the pointer on one to see what the "
        "network alone paid.</p>",
        f'<p class="scale">{legend}<span>bits a token</span></p>',
    ]
    for name, passages in (("least", easiest), ("most", hardest)):
        if passages:
            blocks.append(f"<h3>The {len(passages)} that cost {name}</h3>")
        blocks += map(passage, passages)
    return "".join(blocks)


def passage(found: Passage) -> str:
    tokens = "".join(
        f'<i class="b{style.shade(token.after)}" title="{escape(visible(token.text, ""))}: '
        f'{token.before:.2f} → {token.after:.2f} bits">{escape(visible(token.text))}</i>'
        for token in found.tokens
    )
    where = f"document {found.document:,}, {found.size:,} bytes from byte {found.start:,}"
    cost = f"<b>{found.bits_per_byte:.3f}</b> bits per byte"
    return f'<p class="caption">{cost}: {where}</p><p class="passage">{tokens}</p>'


def visible(text: str, break_line: str = "\n") -> str:
    """Text that shows all it has: ends of lines as ↵ (and, in the text, a new line), what cannot be printed as its escape."""
    shown = (character if character.isprintable() else ascii(character)[1:-1] for character in text.replace("\n", "↵\n"))
    return "".join(break_line if escaped == "\\n" else escaped for escaped in shown)


def training(losses: pd.DataFrame) -> str:
    first, last = losses["loss"].iloc[0], losses["loss"].iloc[-1]
    step = losses["step"].iloc[-1]
    moves = "falls" if last < first else "rises"
    title = f"Training loss {moves} from {first:.2f} to {last:.2f} nats a token in {step:,} steps"
    drawing = charts.curves(
        {"blue": (losses["step"].tolist(), losses["loss"].tolist())},
        "training loss by step",
        ("step", "nats a token (log scale)"),
        logarithmic=True,
    )
    return f"<h2>Training</h2>{figure(title, drawing, 'train/loss.tsv')}"


def quantisation(matrices: pd.DataFrame) -> str:
    """Every matrix by its role and error, and the matrices that are estimated to cost most."""
    rows: dict[str, list[tuple[float, str]]] = {}
    for row in matrices.itertuples():
        rows.setdefault(row.role.replace("_", " "), []).append((row.relative_error, f"{row.name}: {row.relative_error:.4f}"))
    worst = matrices.sort_values("estimated_loss", ascending=False, kind="stable")
    cells = [
        [m.name, f"{m.rows:,} × {m.columns:,}", f"{m.entropy:.2f}", f"{m.relative_error:.4f}", costs(m.estimated_loss)]
        for m in worst.itertuples()
    ]
    header = ["matrix", "rows × columns", "bits a weight", "relative error", "estimated loss, nats a token"]
    top, whole = worst.iloc[0], worst["estimated_loss"].clip(lower=0).sum()
    title = (
        f"{top['name']} costs most: {top.estimated_loss / whole:.0%} of the estimated loss"
        if whole
        else "No loss was estimated"
    )
    drawing = charts.strips(rows, "relative error of a matrix", "quantisation error of every matrix by role")
    return (
        f"<h2>What quantising loses</h2>{figure(title, drawing, 'quant/matrices.tsv')}"
        f"{fold(f'All {len(cells)} matrices, the costliest first', table(header, cells, numbers=(1, 2, 3, 4)))}"
    )


def costs(loss: float) -> str:
    """Nothing for the −1 of a matrix that calibration did not see."""
    return f"{loss:.6f}" if loss >= 0 else ""


def clocks(seconds: pd.DataFrame) -> str:
    whole, longest = seconds["seconds"].sum(), seconds.loc[seconds["seconds"].idxmax()]
    title = f"{longest['stage']} takes {longest['share']:.0%} of {whole:,.0f} seconds"
    notes = [f"{value:,.1f} s ({share:.0%})" for value, share in zip(seconds["seconds"], seconds["share"], strict=True)]
    drawing = charts.bars(seconds["stage"].tolist(), {"blue": seconds["seconds"].tolist()}, notes, "seconds of each stage")
    rows = [
        [row.stage, f"{row.seconds:,.1f}", "" if pd.isna(row.rate) else f"{row.rate:,.0f}", row.parts]
        for row in seconds.itertuples()
    ]
    return (
        "<h2>How long it took</h2><p>Measured on the machine that ran it; another run differs. A stage that was not run again "
        "shows the clock of its last run. Parts may overlap.</p>"
        + figure(title, drawing, None)
        + table(["stage", "seconds", "tokens a second", "of which"], rows, numbers=(1, 2), wide=(3,))
    )


def params(changes: pd.DataFrame | None) -> str:
    if changes is None:
        said = "<p>There is no commit to compare params.yaml with.</p>"
    elif changes.empty:
        said = "<p>None: params.yaml is that of the commit.</p>"
    else:
        rows = [[f"<code>{escape(cell)}</code>" for cell in row] for row in changes.astype(str).to_numpy().tolist()]
        said = table(["param", "in the commit", "in this run"], rows, markup=range(3))
    return f"<h2>Params that differ from the commit’s</h2>{said}"


def saves(gain: float) -> str:
    return f"{'saves' if gain >= 0 else 'costs'} {abs(gain):.4f}"
