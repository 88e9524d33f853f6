"""The stage on a validation set of bytes and stand-ins for the submission: whatever they do, it ends in a certificate.

Scoring is left out (tests/proof/test_causality.py); the real submission goes the whole pipeline in tests/pipeline.
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
import zstandard

from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.proof import checks
from fairway.score.files import table
from fairway.text.byte_count import table_bytes
from fairway.text.shards import ShardWriter
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from stages import certify
from tests.proof.standin import submission

ROOT = Path(__file__).resolve().parents[2]
TOKENIZER = Tokenizer.from_bytes(BYTE_MODEL)
DOCUMENTS = ["Fellow citizens of the Senate " * 4, "and of the House of Representatives — " * 3]
TARGETS = len("\0".join(DOCUMENTS).encode())  # bytes, and BOS for NUL
CLOCKS = {"seconds": 5.0, "compile_seconds": 1.0, "calibration_seconds": 2.0, "encode_seconds": 1.0, "decode_seconds": 1.0}


@pytest.fixture
def pipeline(tmp_path, monkeypatch) -> Path:
    """All that the stage reads, after an honest pipeline of the stand-in: each token is scored with its share of the bits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "scoring_claims", lambda *arguments: [])
    for module in ("checks", "certificate"):
        monkeypatch.setattr(f"fairway.proof.{module}.arithmetic", lambda: "arithmetic of a stand-in")
    params = read_yaml(ROOT / "params.yaml")
    params["certify"] |= {"tokens": "all", "train_seconds": 20, "eval_seconds": 20}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    stream = TOKENIZER.encode("\0".join(DOCUMENTS))
    for name, text in (("train", "a train text"), ("holdout", "another"), ("val", "\0".join(DOCUMENTS))):
        with ShardWriter(Path("artifacts/tokenize") / name, name, 10**6) as writer:
            writer.write(TOKENIZER.encode(text))
    lines = "".join(json.dumps({"text": document}) + "\n" for document in DOCUMENTS)
    Path("artifacts/tokenize/val_documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    for name in certify.LEDGERS:
        put(f"artifacts/{name}/ledger.json", {"stage": name, "val_tokens_before_scoring": 0})
    for name in certify.TIMED:
        put(f"reports/{name}/timing.json", CLOCKS)
    submit()
    bits = 8 * len(zlib.compress("\0".join(DOCUMENTS).encode()))
    report(stream, np.full(len(stream) - 1, bits * math.log(2) / (len(stream) - 1)))
    return tmp_path


def put(path: str, content: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content))


def submit(cheat: str = "") -> None:
    Path("artifacts/compress").mkdir(exist_ok=True)
    members = {"tokenizer.model": BYTE_MODEL}
    Path("artifacts/compress/submission.pyz").write_bytes(submission(cheat, members))


def report(stream: np.ndarray, nats: np.ndarray) -> None:
    for name in certify.EVALS:
        Path(f"artifacts/{name}").mkdir(parents=True, exist_ok=True)
        rows = table(stream, table_bytes(TOKENIZER).lossless_bytes, nats, nats)
        np.save(f"artifacts/{name}/scores.npy", rows)


def run() -> dict:
    """The certificate."""
    certify.main()
    return json.loads(Path("artifacts/certify/certificate.json").read_text())


def names(certificate: dict) -> list[str]:
    return [claim["claim"] for claim in certificate["claims"] if not claim["passed"]]


def test_an_honest_pipeline_is_legal_and_writes_all_that_a_verifier_needs(pipeline):
    certificate = run()
    assert certificate["reasons"] == [] and certificate["legal"] is True
    assert all(certificate["conditions"].values()) and certificate["certified_tokens"] == TARGETS == certificate["val_tokens"]
    assert Path("artifacts/certify/val.txt").read_bytes() == "\0".join(DOCUMENTS).encode()
    assert Path("artifacts/certify/coded.fwt").read_bytes()[:4] == b"FWYT"
    assert certificate["train_seed"] == read_yaml(ROOT / "params.yaml")["train"]["seed"]
    assert certificate["arithmetic"] == "arithmetic of a stand-in" and certificate["isolation"]["holds"]
    page = Path("artifacts/certify/certificate.md").read_text()
    assert "**Legal**" in page and certificate["command"] in page
    metrics = json.loads(Path("reports/certify/metrics.json").read_text())
    assert metrics["legal"] is True and metrics["certified_tokens"] == TARGETS and metrics["coded_minus_scored_percent"] == 0
    timing = json.loads(Path("reports/certify/timing.json").read_text())
    assert timing["decode_tokens_per_second"] == round(TARGETS / 2) and timing["start_seconds"] == 0.5
    assert timing["encode_seconds"] > 0 and timing["decode_seconds"] > 0


def test_clocks_are_no_part_of_the_certificate(pipeline):
    run()
    first = Path("artifacts/certify/certificate.json").read_bytes()
    for name in certify.TIMED:
        put(f"reports/{name}/timing.json", CLOCKS | {"seconds": 4.75})
    run()
    assert Path("artifacts/certify/certificate.json").read_bytes() == first
    page = " ".join(Path("artifacts/certify/certificate.md").read_text().split())
    assert "| train | train | 4.8 |" in page


def test_a_clock_that_is_gone_is_not_proved(pipeline):
    Path("reports/eval_ttt/timing.json").unlink()
    assert names(run()) == ["evaluation keeps to its time"]


def test_a_submission_that_reads_the_text_elsewhere_is_refused_by_its_path(pipeline):
    submit("result = open('/srv/val.txt', 'rb')")
    certificate = run()
    assert certificate["legal"] is False and certificate["certified_tokens"] == 0
    assert names(certificate)[:4] == [
        "the text comes back, bit for bit",
        "it reads nothing but its artifact",
        "the reported score is what the text costs",
        "every prediction is a distribution",
    ]
    assert any("compress tried to open /srv/val.txt" in reason for reason in certificate["reasons"])
    assert Path("artifacts/certify/coded.fwt").read_bytes() == b""
    metrics = json.loads(Path("reports/certify/metrics.json").read_text())
    assert metrics["certified_bpb"] is None and metrics["coded_minus_scored_percent"] is None


@pytest.mark.parametrize(
    ("cheat", "claims"),
    [
        ("compress = lambda text: b'short'", ["the text comes back, bit for bit", "the reported score is what the text costs"]),
        ("decompress = lambda coded: b'other'", ["the text comes back, bit for bit"]),
        ("NAME += content[:9]", ["the reported score is what the text costs"]),
    ],
)
def test_what_a_submission_writes_is_measured_and_not_believed(pipeline, cheat, claims):
    submit(cheat)
    certificate = run()
    assert certificate["legal"] is False
    assert names(certificate) == claims


def test_scores_that_were_touched_are_refused(pipeline):
    rows = np.load("artifacts/eval_ngram/scores.npy")
    rows["nats"][: TARGETS // 2] *= 0.5
    rows["bytes"][17] += 1
    np.save("artifacts/eval_ngram/scores.npy", rows)
    certificate = run()
    assert names(certificate) == [
        "the reported score is what the text costs",
        "every token counts its bytes",
        "the bytes are those of the text",
    ]
    letter = "\0".join(DOCUMENTS)[17]
    assert f"every token counts its bytes: eval_ngram: token 17 '{letter}' counts 2 bytes, spells 1" in certificate["reasons"]


def test_rows_that_are_missing_are_no_crash(pipeline):
    for name in certify.EVALS:
        np.save(f"artifacts/{name}/scores.npy", np.load(f"artifacts/{name}/scores.npy")[: TARGETS // 2])
    assert {"the reported score is what the text costs", "each token is scored exactly once"} <= set(names(run()))


def test_training_text_that_is_validation_text_is_refused(pipeline):
    with ShardWriter(Path("artifacts/tokenize/train"), "train", 10**6) as writer:
        writer.write(TOKENIZER.encode(DOCUMENTS[1]))
    certificate = run()
    assert certificate["reasons"] == ["train, holdout and val share no document: 1 documents in val and train"]


@pytest.mark.parametrize("path", ["artifacts/quant/ledger.json", "reports/train/timing.json"])
@pytest.mark.parametrize(
    ("content", "problem"), [("", "not valid JSON"), ("[]", "expected the key"), ("{}", "expected the key")]
)
def test_a_damaged_ledger_or_timing_is_named(pipeline, path, content, problem):
    Path(path).write_text(content)
    with pytest.raises(InputError, match=f"{path}: {problem}.*; run `dvc repro` to write it again"):
        certify.main()


def test_a_clock_that_is_no_number_is_a_sentence(pipeline):
    Path("reports/train/timing.json").write_text('{"seconds": "soon"}')
    with pytest.raises(InputError, match=r"reports/train/timing\.json: 'seconds' is 'soon', expected a number"):
        certify.main()
