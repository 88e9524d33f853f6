"""reports/summary.md: what a reader wants to know, in the order of asking, as GitHub shows it.

Plain Markdown written by hand; figures are linked relative to the page, so that the page can be read in the repository
and in a copy of `reports/` alike.
"""

import pandas as pd

from fairway.markdown import table

MEANING = {
    "float": "trained weights before quantisation, in windows that do not overlap",
    "quantised": "decoded artifact, same windows",
    "streaming": "decoded artifact, weights frozen, scored by `eval.method`",
    "TTT": "learns from each chunk once it is scored",
    "cache": "the same, blended with a continuous cache of its hidden states",
    "mixture": "mixed with what the text so far says, by `ngram.mixture`",
}


def page(summary: dict, frames: dict[str, pd.DataFrame], claims: list[dict]) -> str:
    """The page. `frames` are the tables of fairway/report/tables.py by the names of their files; `claims` as certified."""
    blocks = [
        "# Report",
        headline(summary, frames["documents"], claims),
        "## The ladder",
        "Bits per byte on the validation text, a rung a decision; the gain is what the rung saves (negative: costs).",
        table(["rung", "what it is", "bpb", "gain"], ladder_rows(frames["ladder"]), numbers=(2, 3)),
        figure("ladder", "bits per byte from float to the mixture"),
        *learned(frames),
        "## Where the bytes go",
        table(["part", "bytes", "share", "weights", "bits per weight"], byte_rows(frames["bytes"]), numbers=(1, 2, 3, 4)),
        figure("bytes", "bytes of submission.pyz by part"),
        "## The certificate",
        "With the four conditions, the clocks and what to type to decode the text: [certificate.md](report/certificate.md).",
        table(["claim", "how", "on how much", "holds", "result"], claim_rows(claims)),
        "## Training",
        figure("loss", "training loss by step") + "\n",
    ]
    return "\n\n".join(blocks)


def learned(frames: dict[str, pd.DataFrame]) -> list[str]:
    """What test-time training and the mixture save, and where."""
    orders = ["order", "tokens", "share", "TTT", "mixture", "bits saved"]
    return [
        "## Along the text",
        "What is saved over streaming in each quarter, in bits per byte: does it still learn?",
        table(["up to byte", "streaming", "TTT", "mixture"], quarter_rows(frames["quarters"]), numbers=range(4)),
        figure("position", "bits per byte along the validation text"),
        figure("savings", "bits saved up to each position"),
        "## Document by document",
        "The numbers are in [documents.tsv](report/documents.tsv).",
        figure("documents", "bits per byte of each document"),
        "## What the mixture adds",
        "Tokens by the longest n-gram whose context was seen before, and what they cost per byte before and after mixing.",
        table(orders, order_rows(frames["orders"]), numbers=range(6)),
        figure("orders", "bits per byte by order"),
    ]


def headline(summary: dict, documents: pd.DataFrame, claims: list[dict]) -> str:
    """One paragraph: the score, on what, with how many bytes, and whether it may be believed."""
    size = summary["artifact_bytes"]
    budget = size + summary["headroom_bytes"]
    count = len(documents)
    sentence = (
        f"**{summary['val_bpb']:.4f} bits per byte** on {documents['bytes'].sum():,} bytes of validation text "
        f"({count:,} document{'s' * (count != 1)}), with a submission of {size:,} bytes "
        f"({size / budget:.1%} of the budget of {budget:,}) and {summary['parameters']:,} parameters."
    )
    if summary["legal"]:
        return sentence + (
            f" **Legal**: all {len(claims)} claims of the certificate hold; {summary['certified_tokens']:,} tokens were coded "
            f"and decoded at {summary['certified_bpb']:.4f} bits per byte."
        )
    failed = "; ".join(f"“{claim['claim']}” ({claim['result']})" for claim in claims if not claim["passed"])
    return sentence + f" **Not legal**: the certificate refuses {failed or 'this score'}."


def figure(name: str, description: str) -> str:
    return f"![{description}](report/{name}.png)"


def ladder_rows(ladder: pd.DataFrame) -> list[list[str]]:
    rows = [[row.stage, MEANING[row.stage], f"{row.bpb:.4f}", signed(row.gain)] for row in ladder.itertuples()]
    rows[-1] = [f"**{cell}**" if column in (0, 2) else cell for column, cell in enumerate(rows[-1])]
    return rows


def signed(gain: float) -> str:
    return "" if pd.isna(gain) else minus(f"{gain:+.4f}")


def minus(number: str) -> str:
    return number.replace("-", "\N{MINUS SIGN}")


def quarter_rows(quarters: pd.DataFrame) -> list[list[str]]:
    return [
        [f"{row.position:,}", f"{row.streaming:.4f}", signed(row.ttt_saves), signed(row.ngram_saves)]
        for row in quarters.itertuples()
    ]


def order_rows(orders: pd.DataFrame) -> list[list[str]]:
    return [
        [str(row.order), f"{row.tokens:,}", f"{row.share:.1%}", known(row.neural), known(row.mixed), minus(f"{row.saved:,.0f}")]
        for row in orders.itertuples()
    ]


def known(bpb: float) -> str:
    return "" if pd.isna(bpb) else f"{bpb:.4f}"


def byte_rows(parts: pd.DataFrame) -> list[list[str]]:
    total = {"part": "**submission.pyz**", "bytes": parts["bytes"].sum(), "weights": parts["weights"].sum()}
    weight_bytes = parts.loc[parts["part"].str.startswith("weights"), "bytes"].sum()
    rows = [byte_row(row.part, row.bytes, row.weights, row.bytes, total["bytes"]) for row in parts.itertuples()]
    return [*rows, byte_row(total["part"], total["bytes"], total["weights"], weight_bytes, total["bytes"])]


def byte_row(part: str, size: int, weights: int, weight_bytes: int, whole: int) -> list[str]:
    rate = [f"{weights:,}", f"{8 * weight_bytes / weights:.3f}"] if weights else ["", ""]
    return [part, f"{size:,}", f"{size / whole:.1%}", *rate]


def claim_rows(claims: list[dict]) -> list[list[str]]:
    return [[c["claim"], c["how"], c["amount"], "yes" if c["passed"] else "**no**", c["result"]] for c in claims]
