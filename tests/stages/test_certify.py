"""The stage on a validation set of bytes and stand-ins for the submission: whatever they do, it ends in a certificate.

Scoring is left out (tests/proof/test_causality.py); the real submission goes the whole pipeline in tests/pipeline.
"""

import hashlib
import json
import math
import re
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
import zstandard

from fairway.params import read_yaml
from fairway.proof import artifact, checks, claims
from fairway.proof.prefix import cut
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
    monkeypatch.setattr(checks, "scoring_claims", lambda *arguments: [scored_as_reported(), scored_as_reported()])
    monkeypatch.setattr(checks, "rescored", lambda *arguments: scored_as_reported())
    monkeypatch.setattr(artifact, "model_from", lambda weights: torch.nn.Identity())
    for module in ("checks", "certificate"):
        monkeypatch.setattr(f"fairway.proof.{module}.arithmetic", lambda: "arithmetic of a stand-in")
    params = read_yaml(ROOT / "params.yaml")
    params["certify"] |= {"tokens": "all", "train_seconds": 20, "eval_seconds": 20}
    params["tokenize"] |= {"source": "shards", "tokenizer": "bytes", "holdout_fraction": 0.5, "witness_fraction": 0.0}
    params["tokenize"] |= {"shards_train": ["data/train/*.bin"], "shards_val": ["data/val/*.bin"]}
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    stream = TOKENIZER.encode("\0".join(DOCUMENTS))
    write_shards("data", train="a train text\0another", val="\0".join(DOCUMENTS))
    write_shards("artifacts/tokenize", train="a train text", holdout="another", val="\0".join(DOCUMENTS))
    for name, documents in (("val", DOCUMENTS), ("witness", [])):
        lines = "".join(json.dumps({"text": document}) + "\n" for document in documents)
        Path(f"artifacts/tokenize/{name}_documents.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    for name in certify.LEDGERS:
        ledger = {"stage": name, "learned_from": "train", "tokens": 9, "val_tokens_before_scoring": 0}
        put(f"artifacts/{name}/ledger.json", ledger)
    for name in certify.TIMED:
        put(f"reports/{name}/timing.json", CLOCKS)
    submit()
    bits = 8 * payload_bytes() - 16  # a range coder ends in a word more
    report(stream, np.full(len(stream) - 1, bits * math.log(2) / (len(stream) - 1)))
    return tmp_path


def write_shards(folder: str, **texts: str) -> None:
    for name, text in texts.items():
        with ShardWriter(Path(folder) / name, name, 10**6) as writer:
            writer.write(TOKENIZER.encode(text))


def payload_bytes(text: bytes = "\0".join(DOCUMENTS).encode()) -> int:
    """Of what the stand-in makes of a text, in whole words."""
    return -(-len(zlib.compress(text)) // 4) * 4


def scored_as_reported() -> claims.Claim:
    return claims.reproduced({"eval_ttt": np.zeros(3)}, {"eval_ttt": np.zeros(3)})


def scored_bits() -> float:
    return np.load("artifacts/eval_ngram/scores.npy")["nats"].sum(dtype=np.float64) / math.log(2)


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


def test_an_honest_pipeline_is_proved_and_writes_all_that_a_verifier_needs(pipeline):
    certificate = run()
    assert certificate["reasons"] == [] and certificate["verdict"] == "proved" and certificate["legal"] is True
    coded, text = Path("artifacts/certify/coded.fwt").read_bytes(), "".join(DOCUMENTS).encode()
    assert certificate["bpb"] == round(8 * len(coded) / len(text), 6) and certificate["coded_bytes"] == len(coded)
    assert certificate["coded_sha256"] == hashlib.sha256(coded).hexdigest()
    for name, found in certificate["scores_sha256"].items():
        assert found == hashlib.sha256(Path(f"artifacts/{name}/scores.npy").read_bytes()).hexdigest()
    assert certificate["commit"] is certificate["dirty"] is certificate["dvc_lock_sha256"] is None  # no repository
    assert all(certificate["conditions"].values()) and certificate["certified_tokens"] == TARGETS == certificate["val_tokens"]
    assert Path("artifacts/certify/val.txt").read_bytes() == "\0".join(DOCUMENTS).encode()
    assert Path("artifacts/certify/coded.fwt").read_bytes()[:4] == b"FWYT"
    assert certificate["train_seed"] == read_yaml(ROOT / "params.yaml")["train"]["seed"]
    assert certificate["arithmetic"] == "arithmetic of a stand-in" and certificate["isolation"]["holds"]
    page = Path("artifacts/certify/certificate.md").read_text()
    assert "**Proved**" in page and certificate["command"] in page
    metrics = json.loads(Path("reports/certify/metrics.json").read_text())
    assert (
        metrics["legal"] is True and metrics["certified_tokens"] == TARGETS and metrics["certified_bpb"] == certificate["bpb"]
    )
    assert metrics["coded_minus_scored_percent"] == pytest.approx(100 * (8 * payload_bytes() / scored_bits() - 1), abs=1e-3)
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
    write_shards("artifacts/tokenize", train=DOCUMENTS[1])
    certificate = run()
    assert names(certificate) == [
        "train, holdout and val share no document",
        "val is not copied from train or holdout",
        "the splits are those of the data",
    ]
    shown = f"2 {DOCUMENTS[1][:40]!r}…"
    assert f"train, holdout and val share no document: 1 documents in val and train ({shown})" in certificate["reasons"]


def test_shards_that_are_gone_are_a_sentence_of_the_certificate(pipeline):
    Path("data/val/val_000000.bin").unlink()
    assert names(run()) == ["the splits are those of the data", "the vocabulary knows train alone"]


def test_a_part_proves_that_part_and_the_score_stays_an_estimate(pipeline, monkeypatch):
    """The stand-in's text is short: the least length is set to what it has."""
    monkeypatch.setattr(claims, "LEAST_BYTES", 10)
    set_params(tokens=130)
    stream = TOKENIZER.encode("\0".join(DOCUMENTS))
    text = cut(stream, TOKENIZER, 130)[1]
    bits = 8 * payload_bytes(text) - 16
    report(stream, np.full(len(stream) - 1, bits * math.log(2) / len(text)))
    certificate = run()
    assert certificate["verdict"] == f"proved for {len(text)} of {TARGETS} tokens" and 100 < len(text) <= 130
    assert certificate["legal"] is None and certificate["reasons"] == []
    assert json.loads(Path("reports/certify/metrics.json").read_text())["legal"] is None
    size = Path("artifacts/certify/coded.fwt").stat().st_size
    assert certificate["bpb"] == round(8 * size / (len(text) - text.count(0)), 6)
    assert certificate["certified_bytes"] == len(text)


def test_a_part_that_is_too_short_proves_nothing(pipeline):
    set_params(tokens=16)
    certificate = run()
    assert certificate["verdict"] == "refused" and names(certificate) == ["the reported score is what the text costs"]
    assert "raise certify.tokens" in certificate["reasons"][0]


def test_rows_beyond_the_part_are_scored_again(pipeline, monkeypatch):
    """What the real scorer says of the whole text takes the place of what it said of the beginning."""
    refused = claims.reproduced({"eval_ttt": np.zeros(3)}, {"eval_ttt": np.ones(3)})
    monkeypatch.setattr(checks, "rescored", lambda *arguments: refused)
    assert "the reported scores are those of one pass" not in names(run())
    set_params(tokens=130)
    certificate = run()
    assert "the reported scores are those of one pass" in names(certificate) and certificate["verdict"] == "refused"
    assert [claim["claim"] for claim in certificate["claims"]].count("the reported scores are those of one pass") == 2


def set_params(**values: object) -> None:
    params = read_yaml("params.yaml")
    params["certify"] |= values
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


@pytest.mark.parametrize("content", ["", "null", "[]", "{}", '{"stage": "quant", "val_tok', '{"stage": NaN}', "[" * 200_000])
def test_a_ledger_that_says_nothing_is_a_claim_that_fails(pipeline, content):
    Path("artifacts/quant/ledger.json").write_text(content)
    certificate = run()
    assert names(certificate) == ["score before update"] and certificate["verdict"] == "refused"
    assert certificate["reasons"][0].startswith("score before update: quant: ")


CLOCKLESS = ["", "null", "[]", "{}", '{"sec', *(f'{{"seconds": {value}}}' for value in ("-5", "1e999", "NaN", "null", '"5"'))]


@pytest.mark.parametrize("content", CLOCKLESS)
def test_a_clock_that_says_nothing_is_a_claim_that_fails(pipeline, content):
    Path("reports/train/timing.json").write_text(content)
    certificate = run()
    assert names(certificate) == ["training keeps to its time"] and certificate["certified_tokens"] == TARGETS


@pytest.mark.parametrize("members", [{}, {"tokenizer.model": b"no model"}, {"tokenizer.model": b""}])
def test_an_artifact_without_a_tokenizer_is_refused_by_name(pipeline, members):
    Path("artifacts/compress/submission.pyz").write_bytes(submission("", members))
    certificate = run()
    assert names(certificate) == ["the artifact can be read"] and certificate["verdict"] == "refused"
    assert "tokenizer.model" in certificate["reasons"][0] and certificate["bpb"] is None
    assert "**Refused**" in Path("artifacts/certify/certificate.md").read_text()


def test_an_artifact_whose_weights_cannot_be_read_is_refused_by_name(pipeline, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(pipeline)
    certificate = run()
    assert names(certificate) == ["the artifact can be read"] and "model.fwy" in certificate["reasons"][0]


SAY = "say, print = print, lambda *words, **more: say({!r}, file=sys.stderr)"
HOSTILE = {
    "a report of Infinity": (SAY.format('{"tokens": Infinity, "seconds": Infinity}'), "wrote no report"),
    "a report of brackets": ("print = lambda *words, **more: sys.stderr.write('[' * 200_000)", "wrote no report"),
    "an integer of 400 digits": (
        SAY.format('{"tokens": 1' + "0" * 400 + ', "normalised_positions": 1e400}'),
        "summed at 0 positions",
    ),
    "a report without tokens": (SAY.format('{"seconds": 0}'), "summed at 0 positions"),
    "seconds that are next to nothing": (SAY.format('{"tokens": 9e15, "seconds": 1e-320}'), "summed at 0 positions"),
    "output without an end": ("while True: sys.stdout.buffer.write(bytes(1 << 16))", "compress wrote more than"),
    "messages without an end or a line": ("while True: sys.stderr.write('x' * 65536)", "bytes to standard error"),
    "sleep for ever": ("time.sleep(10**6)", "compress failed with status"),
    "a decoder that sleeps for ever": ("if command == 'decompress': time.sleep(10**6)", "decompress failed with status"),
    "nothing at all": ("sys.exit()", "wrote no file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_certificate_is_written_whatever_a_submission_writes(pipeline, name, capsys):
    cheat, words = HOSTILE[name]
    set_params(coding_seconds=4)
    submit(cheat)
    certificate = run()
    assert certificate["verdict"] == "refused" and any(words in reason for reason in certificate["reasons"])
    assert "certify: refused" in capsys.readouterr().out
    assert "**Refused**" in Path("artifacts/certify/certificate.md").read_text()
    for path in ("reports/certify/metrics.json", "reports/certify/timing.json", "artifacts/certify/certificate.json"):
        assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", Path(path).read_text()))


def test_what_a_submission_prints_cannot_steer_a_terminal(pipeline, capsys):
    submit("sys.exit('\\x1b[2J\\x9b1mgone\\nand more\\r')")
    certificate = run()
    shown = capsys.readouterr().out + Path("artifacts/certify/certificate.md").read_text()
    assert not any(character in shown for character in "\x1b\x9b\r") and "and more" in shown
    assert certificate["verdict"] == "refused"


def test_a_repository_is_named_by_what_the_run_is_made_of(pipeline):
    """Commits of reports, of dvc.lock or of a page that no stage reads leave the certificate as it is."""
    dvc = {"stages": {"train": {"deps": ["code.py"], "outs": ["artifacts/train"]}, "certify": {"deps": ["artifacts/train"]}}}
    entry = {"cmd": "train", "deps": [{"path": "code.py", "md5": "a"}], "outs": [{"path": "artifacts/train", "md5": "b"}]}
    put("dvc.yaml", dvc)
    put("dvc.lock", {"stages": {"train": entry}})
    Path("code.py").write_text("1")
    commit("code.py", "params.yaml", "dvc.lock")
    first = run()
    assert first["dirty"] is False and len(first["commit"]) == 40 and len(first["dvc_lock_sha256"]) == 64
    put("dvc.lock", {"stages": {"train": entry | {"outs": [*entry["outs"], {"path": "reports/train", "md5": "seconds"}]}}})
    commit("dvc.lock", "reports")
    assert run() == first
    Path("code.py").write_text("2")
    assert run() == first | {"dirty": True}
    commit("code.py")
    assert run()["commit"] not in (first["commit"], None)
    put("dvc.lock", {"stages": {"train": entry | {"params": {"seed": 2}}}})
    assert run()["dvc_lock_sha256"] not in (first["dvc_lock_sha256"], None)
    put("dvc.lock", {"stages": {}})
    assert run()["dvc_lock_sha256"] is None


def commit(*paths: str) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "-f", *paths], ["commit", "-qm", "a run"]):
        subprocess.run([*git, *words], check=True)
