"""What the report says, once for both of its pages: sections of paragraphs, tables and figures.

page.py renders them as Markdown, html.py as HTML. Text is inline Markdown (`code`, **bold**, links); cells are text or bool.
The order is that of a reader's questions: may the score be believed, how it came about, where the bytes went, what the score is
made of, how the network was trained and quantized.
"""

from collections.abc import Container
from typing import NamedTuple

import pandas as pd

from fairway.report.charts import minus
from fairway.report.figures import Figure
from fairway.report.labels import LEARNERS, MIXTURE, SCORES, STREAMING, TTT
from fairway.report.record import PROVED, REFUSED


class Table(NamedTuple):
    header: list[str]
    rows: list[list[str | bool]]
    numbers: Container[int] = ()  # columns that are flush right
    total: bool = False  # the last row is the sum or the result
    folded: str = ""  # what stands in place of the table until the reader unfolds it; "" shows it at once
    unfolded: bool = False  # whether that has happened already


class Bullets(NamedTuple):
    items: list[str]


Block = str | Table | Bullets | Figure


class Section(NamedTuple):
    heading: str
    blocks: list[Block]


def sections(summary: dict, frames: dict[str, pd.DataFrame], figures: dict[str, Figure], certificate: dict) -> list[Section]:
    """All that both pages show.

    `frames` are the tables of tables.py by the names of their files, with `layers` (breakdown.py) and `matrices`
    (reports/quant/matrices.tsv); `figures` are those of figures.drawn; `certificate` is certificate.json.
    """
    return [
        Section("The certificate", certified(certificate)),
        Section("From the float weights to the mixture", [ladder(frames["ladder"]), figures["ladder"]]),
        Section("Where the bytes go", [figures["bytes"], parts(frames["bytes"]), figures["layers"], layers(frames["layers"])]),
        Section("Along the text", [*along(frames["quarters"]), figures["position"], figures["savings"]]),
        Section("Document by document", [figures["documents"]]),
        Section("What the mixture adds", [*orders(frames["orders"]), figures["orders"]]),
        Section("Training", [figures["loss"]]),
        Section("What quantizing loses", [figures["matrices"], matrices(frames["matrices"])]),
    ]


def headline(summary: dict, documents: pd.DataFrame) -> str:
    """What the score is of, as the end of a sentence that begins with it."""
    size, count = summary["artifact_bytes"], len(documents)
    budget = size + summary["headroom_bytes"]
    return (
        f"on {documents['bytes'].sum():,} bytes of validation text ({count:,} document{'s' * (count != 1)}), with a submission "
        f"of **{size:,} bytes** ({size / budget:.1%} of the budget of {budget:,}) and {summary['parameters']:,} parameters, "
        f"{summary['bits_per_weight']:.3f} bits per weight."
    )


def certified(certificate: dict) -> list[Block]:
    """The verdict, the conditions, and every claim."""
    claims = certificate["claims"]
    rows = [[c["condition"], c["claim"], c["amount"], c["passed"], c["result"], c["how"]] for c in claims]
    header = ["condition", "claim", "on how much", "holds", "result", "how"]
    return [
        *verdict(certificate),
        Table(["condition", "holds"], [[name, held] for name, held in certificate["conditions"].items()]),
        Table(header, rows, folded=f"All {len(claims)} claims", unfolded=certificate["verdict"] == REFUSED),
        "With clocks, digests and the command that decodes the text: [certificate.md](report/certificate.md).",
    ]


def verdict(certificate: dict) -> list[Block]:
    """What is proved, or why nothing is."""
    if certificate["verdict"] == REFUSED:
        return [
            "**Refused**: the score is an estimate, and the certificate does not back it:",
            Bullets(certificate["reasons"] or ["nothing was coded"]),
        ]
    proved = (
        f"{certificate['certified_tokens']:,} of {certificate['val_tokens']:,} tokens were coded and decoded bit for bit in "
        f"{certificate['coded_bytes']:,} bytes, {certificate['bpb']:.4f} bits per byte. All "
        f"{len(certificate['claims'])} claims hold."
    )
    if certificate["verdict"] == PROVED:
        return [f"**Proved**: {proved} The score is the size of that file; the scores below are sums of −log₂ p."]
    return [f"**Proved in part**: {proved} The score of the whole text is an estimate, the sum of −log₂ p."]


def ladder(frame: pd.DataFrame) -> Table:
    meaning = {score.name: score.meaning for score in SCORES}
    rows = [[row.stage, meaning[row.stage], f"{row.bpb:.4f}", signed(row.gain)] for row in frame.itertuples()]
    return Table(["step", "what it is", "bpb", "saves"], rows, numbers=(2, 3), total=True)


def parts(frame: pd.DataFrame) -> Table:
    whole, weights = frame["bytes"].sum(), frame["weights"].sum()
    weight_bytes = frame.loc[frame["part"].str.startswith("weights"), "bytes"].sum()
    rows = [[row.part, *sizes(row.bytes, whole), *per_weight(row.weights, row.bytes)] for row in frame.itertuples()]
    rows.append(["submission.pyz", *sizes(whole, whole), *per_weight(weights, weight_bytes)])
    return Table(["part", "bytes", "share", "weights", "bits per weight"], rows, numbers=(1, 2, 3, 4), total=True)


def layers(frame: pd.DataFrame) -> Table:
    rows = [[row.layer, f"{row.bytes:,}", *per_weight(row.weights, row.bytes)] for row in frame.itertuples()]
    header = ["layer", "bytes", "weights", "bits per weight"]
    return Table(header, rows, numbers=(1, 2, 3), folded="By layer, in numbers")


def sizes(size: int, whole: int) -> list[str]:
    return [f"{size:,}", f"{size / whole:.1%}"]


def per_weight(weights: int, size: int) -> list[str]:
    return [f"{weights:,}", f"{8 * size / weights:.3f}"] if weights else ["", ""]


def along(quarters: pd.DataFrame) -> list[Block]:
    """What is saved over streaming in each quarter of the text."""
    rows = [
        [f"{row.position:,}", f"{row.streaming:.4f}", signed(row.ttt_saves), signed(row.ngram_saves)]
        for row in quarters.itertuples()
    ]
    header = ["up to byte", STREAMING.name, *(f"{score.name} saves" for score in LEARNERS)]
    return ["Bits per byte in each quarter of the text: does it still learn?", Table(header, rows, numbers=range(4))]


def orders(frame: pd.DataFrame) -> list[Block]:
    rows = [
        [str(row.order), f"{row.tokens:,}", f"{row.share:.1%}", known(row.neural), known(row.mixed), minus(f"{row.saved:,.0f}")]
        for row in frame.itertuples()
    ]
    said = "Tokens by the longest n-gram whose context was seen before, and their bits per byte before and after mixing."
    return [said, Table(["order", "tokens", "share", TTT.name, MIXTURE.name, "bits saved"], rows, numbers=range(6))]


def matrices(frame: pd.DataFrame) -> Table:
    """All quantized matrices. The estimated loss is −1, shown as nothing, for one that calibration did not reach."""
    rows = [
        [m.name, f"{m.rows:,} × {m.columns:,}", f"{m.entropy:.2f}", f"{m.relative_error:.4f}", costs(m.estimated_loss)]
        for m in frame.sort_values("estimated_loss", ascending=False, kind="stable").itertuples()
    ]
    header = ["matrix", "rows × columns", "bits per weight", "relative error", "estimated loss, nats per token"]
    return Table(header, rows, numbers=(1, 2, 3, 4), folded=f"All {len(rows)} matrices, the costliest first")


def costs(loss: float) -> str:
    return f"{loss:.6f}" if loss >= 0 else ""


def signed(gain: float) -> str:
    return "" if pd.isna(gain) else minus(f"{gain:+.4f}")


def known(bpb: float) -> str:
    return "" if pd.isna(bpb) else f"{bpb:.4f}"
