"""report: the metrics and scores of all stages as one summary, its pages, tables for `dvc plots` and figures.

Nothing is measured here. What the stages say about the same thing is compared first: score files of one stream, adding up
to the metrics beside them, the mixture's made of the network's; bytes by role adding up to the artifact.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from fairway.errors import InputError
from fairway.report import breakdown, figures, html, passages, tables
from fairway.report.page import page
from fairway.score import files
from fairway.score.bits import bits_per_byte
from fairway.score.files import AGAIN
from fairway.text.tokenizer import Tokenizer
from stages.shell import ARTIFACTS, PARAMS, REPORTS, run, write_bytes, write_json

STAGES = ["tokenize", "train", "prequant_ttt", "quant", "compress", "eval_sliding", "eval_ttt", "eval_ngram", "certify"]
# Kind of score in the tables, the stage that wrote it, the metric it adds up to.
KINDS = [
    ("streaming", "eval_sliding", "val_bpb_sliding"),
    ("ttt", "eval_ttt", "val_bpb_ttt"),
    ("ngram", "eval_ngram", "val_bpb_ngram"),
]
# A figure's name, and the table of that name that it shows.
DRAWINGS = {
    "ladder": figures.ladder,
    "position": figures.position,
    "savings": figures.savings,
    "documents": figures.documents,
    "orders": figures.orders,
    "bytes": figures.parts,
    "loss": figures.loss,
}
PLOTTED = {"ladder": ["stage", "bpb"], "bytes": ["part", "bytes"]}  # of tables of which `dvc plots` needs less
MORE_KEYS = {"tokenize": ["val_tokens"], "compress": ["tokenizer_bytes", "weights_bytes"]}
CERTIFICATE_KEYS = ["legal", "conditions", "reasons", "claims", "certified_tokens", "val_tokens"]
CLAIM_KEYS = ["condition", "claim", "how", "amount", "passed", "result"]
MATRIX_COLUMNS = ["name", "role", "rows", "columns", "relative_error", "estimated_loss", "entropy"]
ROUNDING = 1e-6  # bits per byte; metrics are written with six decimals


def main() -> None:
    wanted = {stage: list(MORE_KEYS.get(stage, [])) for stage in STAGES if stage not in ("prequant_ttt", "quant")}
    for key, stage in tables.SUMMARY:
        if key not in tables.OPTIONAL:
            wanted[stage].append(key)
    metrics = {stage: read_json(REPORTS / stage / "metrics.json", keys) for stage, keys in wanted.items()}
    certificate = read_certificate(ARTIFACTS / "certify/certificate.json")
    certificate_page = read_page(ARTIFACTS / "certify/certificate.md")
    roles = read_tsv(REPORTS / "compress/roles.tsv", ["role", "weights", "bytes"])
    check_bytes(roles, metrics["compress"])
    losses = read_tsv(REPORTS / "train/loss.tsv", ["step", "loss"])
    matrices = read_tsv(REPORTS / "quant/matrices.tsv", MATRIX_COLUMNS)
    timing = {stage: read_json(REPORTS / stage / "timing.json", ["seconds"]) for stage in STAGES}
    scores = read_scores(metrics)
    pieces = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes()).pieces

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
    for name, draw in DRAWINGS.items():
        write_bytes(folder / f"{name}.png", figures.png(draw(losses if name == "loss" else frames[name])))
    write_bytes(REPORTS / "summary.md", page(summary, frames, certificate["claims"]).encode())
    write_bytes(folder / "certificate.md", certificate_page)
    frames |= {"loss": losses, "matrices": matrices, "layers": breakdown.by_layer(roles), "seconds": breakdown.seconds(timing)}
    extremes = passages.extremes(scores["ngram"], pieces)
    write_bytes(REPORTS / "index.html", html.index(summary, frames, certificate, extremes, changed_params()).encode())
    write_json(REPORTS / "summary.json", summary)
    verdict = "legal" if summary["legal"] else "not legal"
    print(f"report: {summary['val_bpb']:.4f} bpb, {summary['artifact_bytes']:,} bytes, {verdict}: see reports/index.html")


def read_json(path: Path, keys: list[str]) -> dict:
    """A JSON object that has all of `keys`. Raises InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing, and the report needs it; {AGAIN}") from None
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); {AGAIN}") from None
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"{path}: expected the key{'s' * (len(missing) > 1)} {', '.join(missing)}, not found; {AGAIN}")
    return content


def read_certificate(path: Path) -> dict:
    certificate = read_json(path, CERTIFICATE_KEYS)
    for number, claim in enumerate(certificate["claims"], 1):
        missing = [key for key in CLAIM_KEYS if key not in claim]
        if missing:
            raise InputError(f"{path}: claim {number} lacks {', '.join(missing)}; {AGAIN}")
    return certificate


def read_page(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: missing, and the report needs it; {AGAIN}") from None


def read_tsv(path: Path, columns: list[str]) -> pd.DataFrame:
    """A table with all of `columns` and at least one row. Raises InputError."""
    try:
        frame = pd.read_csv(path, sep="\t")
    except FileNotFoundError:
        raise InputError(f"{path}: missing, and the report needs it; {AGAIN}") from None
    except ValueError as error:  # pandas' own errors for an empty or ragged file are ValueErrors
        raise InputError(f"{path}: not a table ({str(error).strip()}); {AGAIN}") from None
    missing = [column for column in columns if column not in frame]
    if missing or frame.empty:
        found = f"no column {', '.join(missing)}" if missing else "no row"
        raise InputError(f"{path}: expected rows of {', '.join(columns)}, found {found}; {AGAIN}")
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
                f"{path}: expected {expected:,} rows, one a validation token but the first, found {len(rows):,}; {AGAIN}"
            )
        first = scores["streaming"]
        if any(not np.array_equal(rows[field], first[field]) for field in ("token", "bytes")):
            raise InputError(f"{path}: its tokens are not those of {ARTIFACTS / 'eval_sliding/scores.npy'}; {AGAIN}")
        total = bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64)))
        if not abs(total - metrics[stage][key]) <= ROUNDING:
            where = REPORTS / stage / "metrics.json"
            raise InputError(f"{path}: adds up to {total:.6f} bpb, but {where} says {key} {metrics[stage][key]}; {AGAIN}")
    if not np.array_equal(scores["ngram"]["neural"], scores["ttt"]["nats"]):
        path, network = (ARTIFACTS / stage / "scores.npy" for stage in ("eval_ngram", "eval_ttt"))
        raise InputError(f"{path}: its network's probabilities are not those of {network}; {AGAIN}")
    return scores


def check_bytes(roles: pd.DataFrame, compress: dict) -> None:
    """Raises InputError unless the bytes by role add up to the weights in the artifact."""
    found, expected = int(roles["bytes"].sum()), compress["weights_bytes"]
    if found != expected:
        path, metrics = REPORTS / "compress/roles.tsv", REPORTS / "compress/metrics.json"
        raise InputError(f"{path}: adds up to {found:,} bytes, but {metrics} says weights_bytes {expected:,}; {AGAIN}")


def changed_params() -> pd.DataFrame | None:
    """Params that differ from the last commit's, as `dvc params diff` shows them; None where there is no commit."""
    try:
        committed = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], capture_output=True, check=True).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return None
    old, new = (YAML(typ="safe", pure=True).load(content) for content in (committed, PARAMS.read_bytes()))
    return breakdown.changed(new, old)


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Nine digits: parts of a score still add up to it within 1e-8."""
    write_bytes(path, frame.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.9g").encode())


if __name__ == "__main__":
    run(main)
