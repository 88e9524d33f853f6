"""report: the metrics and scores of all stages as one summary, its pages, tables for `dvc plots` and figures.

Nothing is measured here. The stage first compares what other stages say about the same thing: the score files are of one
stream and add up to the metrics beside them, the mixture's rows contain the network's, bytes by role add up to the artifact.
"""

import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

from fairway.errors import RERUN, InputError, reading
from fairway.params import parse_yaml, read_yaml
from fairway.report import breakdown, charts, content, figures, html, labels, page, passages, record, tables
from fairway.report.labels import MIXTURE, PER_TOKEN, SCORES, STREAMING, TTT, Score
from fairway.score import files
from fairway.score.bits import bits_per_byte
from fairway.text.tokenizer import read_tokenizer
from stages.common import ARTIFACTS, PARAMS, REPORTS, read_json, read_timing, run, write_bytes, write_json

STAGES = ["tokenize", "train", "prequant_ttt", "quant", "compress", "eval_sliding", "eval_ttt", "eval_ngram", "certify"]
PLOTTED = {"ladder": ["stage", "bpb"], "bytes": ["part", "bytes"]}  # of tables of which `dvc plots` needs less
MORE_KEYS = {"tokenize": ["val_tokens"], "compress": ["tokenizer_bytes", "weights_bytes"]}
MATRIX_NUMBERS = ["rows", "columns", "relative_error", "estimated_loss", "entropy"]
ROUNDING = 1e-6  # bits per byte; metrics are written with six decimals


def main() -> None:
    metrics = {}
    for stage in STAGES:
        scored = [score.metric for score in SCORES if score.stage == stage and not score.optional]
        keys = MORE_KEYS.get(stage, []) + scored + tables.REST.get(stage, [])
        metrics[stage] = read_json(REPORTS / stage / "metrics.json", keys)
    certificate = read_json(Path(record.CERTIFICATE), [])
    record.check(certificate)
    certificate_page = read_page(ARTIFACTS / "certify/certificate.md")
    roles = read_tsv(REPORTS / "compress/roles.tsv", ["role", "name"], ["weights", "bytes"])
    check_bytes(roles, metrics["compress"])
    losses = read_tsv(REPORTS / "train/loss.tsv", [], ["step", "loss"])
    matrices = read_tsv(REPORTS / "quant/matrices.tsv", ["name", "role"], MATRIX_NUMBERS)
    timing = {stage: read_timing(stage) for stage in STAGES}
    scores = read_scores(metrics)
    record.compare(certificate, Path())
    check_size(metrics["compress"]["artifact_bytes"], Path(record.HASHED["submission_sha256"]))
    for stage in ("certify", *record.SCORED):
        record.check_numbers(metrics[stage], certificate, f"{REPORTS / stage / 'metrics.json'}")
    pieces = read_tokenizer(ARTIFACTS / "tokenize/tokenizer.model").pieces

    summary = tables.summary(metrics, certificate)
    frames = {
        "ladder": tables.ladder(metrics),
        "position": tables.by_position(scores),
        "quarters": tables.quarters(scores),
        "savings": tables.savings(scores),
        "documents": tables.by_document(scores),
        "orders": tables.by_order(scores[MIXTURE.column]),
        "bytes": tables.byte_parts(metrics["compress"], roles),
        "layers": breakdown.by_layer(roles),
        "matrices": matrices,
    }
    folder = REPORTS / "report"
    for name, frame in frames.items():
        write_table(folder / f"{name}.tsv", frame[PLOTTED.get(name, list(frame))])
    frames |= {"loss": losses, "seconds": breakdown.seconds(timing)}
    drawn = figures.drawn(frames)
    for name, figure in drawn.items():
        write_bytes(folder / f"{name}.svg", charts.document(figure.drawing))
    sections = content.sections(summary, frames, drawn, certificate)
    extremes = passages.extremes(scores[MIXTURE.column], pieces)
    write_bytes(REPORTS / "summary.md", page.page(summary, frames["documents"], sections).encode())
    write_bytes(REPORTS / "index.html", html.index(summary, frames, sections, extremes, changed_params()).encode())
    write_bytes(folder / "certificate.md", certificate_page)
    write_bytes(folder / "certificate.json", Path(record.CERTIFICATE).read_bytes())
    write_json(folder / "stages.json", metrics)
    write_json(REPORTS / "summary.json", summary)
    score = f"{summary['val_bpb']:.4f} bpb{labels.doubt(summary)}"
    print(f"report: {score}, {summary['artifact_bytes']:,} bytes, {certificate['verdict']}: see reports/index.html")


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
    """Rows by column of the tables. Raises InputError unless they are of one stream and add up to the stages' metrics."""
    scores = {}
    expected = metrics["tokenize"]["val_tokens"] - 1  # no prediction has the first BOS as its target
    for score in PER_TOKEN:
        path = scores_path(score)
        rows = scores[score.column] = files.read(path)
        if len(rows) != expected:
            raise InputError(
                f"{path}: expected {expected:,} rows, one per validation token but the first, found {len(rows):,}; {RERUN}"
            )
        first = scores[STREAMING.column]
        if any(not np.array_equal(rows[field], first[field]) for field in ("token", "bytes")):
            raise InputError(f"{path}: its tokens are not those of {scores_path(STREAMING)}; {RERUN}")
        total, said = bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64))), metrics[score.stage][score.metric]
        if not abs(total - said) <= ROUNDING:
            where = REPORTS / score.stage / "metrics.json"
            raise InputError(f"{path}: adds up to {total:.6f} bpb, but {where} says {score.metric} {said}; {RERUN}")
    if not np.array_equal(scores[MIXTURE.column]["neural"], scores[TTT.column]["nats"]):
        path, network = scores_path(MIXTURE), scores_path(TTT)
        raise InputError(f"{path}: its network's probabilities are not those of {network}; {RERUN}")
    return scores


def scores_path(score: Score) -> Path:
    return ARTIFACTS / score.stage / "scores.npy"


def check_size(said: object, artifact: Path) -> None:
    if said != (size := artifact.stat().st_size):
        where = REPORTS / "compress/metrics.json"
        raise InputError(f"{where}: artifact_bytes is {said}, but {artifact} has {size:,} bytes; {RERUN}")


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


def write_table(path: Path, frame: pd.DataFrame) -> None:
    """Nine digits: parts of a score still add up to it within 1e-8."""
    write_bytes(path, frame.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.9g").encode())


if __name__ == "__main__":
    run(main)
