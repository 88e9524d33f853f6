"""report: the metrics and scores of all stages as one summary, its pages, tables for `dvc plots` and figures.

Nothing is measured here. What the stages say about the same thing is compared first: score files of one stream, adding up
to the metrics beside them, the mixture's made of the network's; bytes by role adding up to the artifact.
"""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from fairway.errors import RERUN, InputError, reading
from fairway.params import parse_yaml, read_yaml
from fairway.report import breakdown, html, passages, tables
from fairway.report.page import page
from fairway.score import files
from fairway.score.bits import bits_per_byte
from fairway.text.tokenizer import read_tokenizer
from stages.common import ARTIFACTS, PARAMS, REPORTS, read_json, run, write_bytes, write_json

STAGES = ["tokenize", "train", "prequant_ttt", "quant", "compress", "eval_sliding", "eval_ttt", "eval_ngram", "certify"]
# Kind of score in the tables, the stage that wrote it, the metric it adds up to.
KINDS = [
    ("streaming", "eval_sliding", "val_bpb_sliding"),
    ("ttt", "eval_ttt", "val_bpb_ttt"),
    ("ngram", "eval_ngram", "val_bpb_ngram"),
]
PLOTTED = {"ladder": ["stage", "bpb"], "bytes": ["part", "bytes"]}  # of tables of which `dvc plots` needs less
MORE_KEYS = {"tokenize": ["val_tokens"], "compress": ["tokenizer_bytes", "weights_bytes"]}
CERTIFICATE_KEYS = ["legal", "conditions", "reasons", "claims", "certified_tokens", "val_tokens"]
CLAIM_KEYS = ["condition", "claim", "how", "amount", "passed", "result"]
MATRIX_NUMBERS = ["rows", "columns", "relative_error", "estimated_loss", "entropy"]
ROUNDING = 1e-6  # bits per byte; metrics are written with six decimals


def main() -> None:
    wanted = {stage: list(MORE_KEYS.get(stage, [])) for stage in STAGES}
    for key, stage in tables.SUMMARY:
        if key not in tables.OPTIONAL:
            wanted[stage].append(key)
    metrics = {stage: read_json(REPORTS / stage / "metrics.json", keys) for stage, keys in wanted.items()}
    certificate = read_certificate(ARTIFACTS / "certify/certificate.json")
    certificate_page = read_page(ARTIFACTS / "certify/certificate.md")
    roles = read_tsv(REPORTS / "compress/roles.tsv", ["role", "name"], ["weights", "bytes"])
    check_bytes(roles, metrics["compress"])
    losses = read_tsv(REPORTS / "train/loss.tsv", [], ["step", "loss"])
    matrices = read_tsv(REPORTS / "quant/matrices.tsv", ["name", "role"], MATRIX_NUMBERS)
    timing = {stage: read_json(REPORTS / stage / "timing.json", ["seconds"]) for stage in STAGES}
    scores = read_scores(metrics)
    pieces = read_tokenizer(ARTIFACTS / "tokenize/tokenizer.model").pieces

    summary = tables.summary(metrics)
    frames = {
        "ladder": tables.ladder(metrics),
        "position": tables.by_position(scores),
        "quarters": tables.quarters(scores),
        "savings": tables.savings(scores),
        "documents": tables.by_document(scores),
        "orders": tables.by_order(scores["ngram"]),
        "bytes": tables.byte_parts(metrics["compress"], roles),
    }
    folder = REPORTS / "report"
    for name, frame in frames.items():
        write_table(folder / f"{name}.tsv", frame[PLOTTED.get(name, list(frame))])
    for name, content in drawings(frames | {"loss": losses}).items():
        write_bytes(folder / f"{name}.png", content)
    write_bytes(REPORTS / "summary.md", page(summary, frames, certificate["claims"]).encode())
    write_bytes(folder / "certificate.md", certificate_page)
    frames |= {"loss": losses, "matrices": matrices, "layers": breakdown.by_layer(roles), "seconds": breakdown.seconds(timing)}
    extremes = passages.extremes(scores["ngram"], pieces)
    write_bytes(REPORTS / "index.html", html.index(summary, frames, certificate, extremes, changed_params()).encode())
    write_json(folder / "stages.json", metrics)
    write_json(REPORTS / "summary.json", summary)
    verdict = "legal" if summary["legal"] else "not legal"
    print(f"report: {summary['val_bpb']:.4f} bpb, {summary['artifact_bytes']:,} bytes, {verdict}: see reports/index.html")


def read_certificate(path: Path) -> dict:
    certificate = read_json(path, CERTIFICATE_KEYS)
    for number, claim in enumerate(certificate["claims"], 1):
        missing = [key for key in CLAIM_KEYS if key not in claim]
        if missing:
            raise InputError(f"{path}: claim {number} lacks {', '.join(missing)}; {RERUN}")
    return certificate


def read_page(path: Path) -> bytes:
    with reading(path, "the certificate's page", ValueError):
        content = path.read_bytes()
        if not content.startswith(b"# Certificate\n"):
            raise ValueError("its heading is missing")
    return content


def read_tsv(path: Path, texts: list[str], numbers: list[str]) -> pd.DataFrame:
    """A table with all of these columns and at least one row, every cell filled. Raises InputError."""
    with reading(path, "a table", ValueError):  # pandas' own errors for an empty or ragged file are ValueErrors
        frame = pd.read_csv(path, sep="\t")
    columns = texts + numbers
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        found = f"no column {', '.join(missing)}" if missing else "no row"
        raise InputError(f"{path}: expected rows of {', '.join(columns)}, found {found}; {RERUN}")
    for column in columns:
        if frame[column].isna().any() or (column in numbers and not pd.api.types.is_numeric_dtype(frame[column])):
            kind = "a number" if column in numbers else "a text"
            raise InputError(f"{path}: column {column} has a cell that is not {kind}; {RERUN}")
    return frame


def read_scores(metrics: dict[str, dict]) -> dict[str, np.ndarray]:
    """Rows by kind of score. Raises InputError unless they are of one stream and add up to the stages' metrics."""
    scores = {}
    expected = metrics["tokenize"]["val_tokens"] - 1  # the first BOS is no target
    for kind, stage, key in KINDS:
        path = ARTIFACTS / stage / "scores.npy"
        rows = scores[kind] = files.read(path)
        if len(rows) != expected:
            raise InputError(
                f"{path}: expected {expected:,} rows, one a validation token but the first, found {len(rows):,}; {RERUN}"
            )
        first = scores["streaming"]
        if any(not np.array_equal(rows[field], first[field]) for field in ("token", "bytes")):
            raise InputError(f"{path}: its tokens are not those of {ARTIFACTS / 'eval_sliding/scores.npy'}; {RERUN}")
        total = bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64)))
        if not abs(total - metrics[stage][key]) <= ROUNDING:
            where = REPORTS / stage / "metrics.json"
            raise InputError(f"{path}: adds up to {total:.6f} bpb, but {where} says {key} {metrics[stage][key]}; {RERUN}")
    if not np.array_equal(scores["ngram"]["neural"], scores["ttt"]["nats"]):
        path, network = (ARTIFACTS / stage / "scores.npy" for stage in ("eval_ngram", "eval_ttt"))
        raise InputError(f"{path}: its network's probabilities are not those of {network}; {RERUN}")
    return scores


def check_bytes(roles: pd.DataFrame, compress: dict) -> None:
    """Raises InputError unless the bytes by role add up to the weights in the artifact."""
    found, expected = int(roles["bytes"].sum()), compress["weights_bytes"]
    if found != expected:
        path, metrics = REPORTS / "compress/roles.tsv", REPORTS / "compress/metrics.json"
        raise InputError(f"{path}: adds up to {found:,} bytes, but {metrics} says weights_bytes {expected:,}; {RERUN}")


def changed_params() -> pd.DataFrame | None:
    """Params that differ from the last commit's, as `dvc params diff` shows them; None where there is no commit."""
    try:
        committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=True).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    return breakdown.changed(read_yaml(PARAMS), parse_yaml(committed, f"{PARAMS} of the last commit"))


def drawings(frames: dict[str, pd.DataFrame]) -> dict[str, bytes]:
    """PNG files by the names of the tables that they show."""
    from fairway.report import figures  # here, because matplotlib takes as long to import as all the rest

    drawn = {
        "ladder": figures.ladder,
        "position": figures.position,
        "savings": figures.savings,
        "documents": figures.documents,
        "orders": figures.orders,
        "bytes": figures.parts,
        "loss": figures.loss,
    }
    return {name: figures.png(draw(frames[name])) for name, draw in drawn.items()}


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Nine digits: parts of a score still add up to it within 1e-8."""
    write_bytes(path, frame.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.9g").encode())


if __name__ == "__main__":
    run(main)
