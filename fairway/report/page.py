"""reports/summary.md: what a reader wants to know, in the order of asking, as GitHub shows it.

Plain Markdown written by hand; figures are linked relative to the page, so that the page can be read in the repository
and in a copy of `reports/` alike.
"""

import pandas as pd

MEANING = {
    "float": "trained weights before quantisation, in windows that do not overlap",
    "quantised": "decoded artifact, same windows",
    "streaming": "decoded artifact, weights frozen, scored by `eval.method`",
    "TTT": "learns from each chunk once it is scored",
    "n-gram": "mixed with an n-gram cache of the text so far",
}


def page(
    summary: dict,
    ladder: pd.DataFrame,
    parts: pd.DataFrame,
    documents: pd.DataFrame,
    claims: list[dict],
) -> str:
    """The page. Tables as made by fairway/report/tables.py; `claims` as in certificate.json."""
    return "\n\n".join(
        [
            "# Report",
            headline(summary, documents, claims),
            "## The ladder",
            "Bits per byte on the validation text, a rung a decision; the gain is what the rung saves (negative: costs).",
            table(["rung", "what it is", "bpb", "gain"], ladder_rows(ladder), numbers=(2, 3)),
            figure("ladder", "bits per byte from float to n-gram"),
            "Along the text, and by document in [documents.tsv](report/documents.tsv):",
            figure("position", "bits per byte along the validation text"),
            "## Where the bytes go",
            table(["part", "bytes", "share", "weights", "bits per weight"], byte_rows(parts), numbers=(1, 2, 3, 4)),
            figure("bytes", "bytes of submission.pyz by part"),
            "## The certificate",
            table(["claim", "how", "on how much", "holds", "result"], claim_rows(claims)),
            "## Training",
            figure("loss", "training loss by step") + "\n",
        ]
    )


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


def table(header: list[str], rows: list[list[str]], numbers: tuple[int, ...] = ()) -> str:
    """A Markdown table; the columns in `numbers` are set flush right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *escaped])


def figure(name: str, description: str) -> str:
    return f"![{description}](report/{name}.png)"


def ladder_rows(ladder: pd.DataFrame) -> list[list[str]]:
    rows = [[row.stage, MEANING[row.stage], f"{row.bpb:.4f}", signed(row.gain)] for row in ladder.itertuples()]
    rows[-1] = [f"**{cell}**" if column in (0, 2) else cell for column, cell in enumerate(rows[-1])]
    return rows


def signed(gain: float) -> str:
    return "" if pd.isna(gain) else f"{gain:+.4f}".replace("-", "\N{MINUS SIGN}")


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
