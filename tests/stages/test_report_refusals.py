"""report refuses what is damaged, and what does not follow from the certificate, in one sentence, and writes nothing."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fairway.errors import InputError
from stages import report
from tests.stages.finished_stages import CERTIFICATE, CLAIM, CODED, TEXT, change, put


def shorten_scores():
    np.save("artifacts/eval_ttt/scores.npy", np.load("artifacts/eval_ttt/scores.npy")[:-1])


def edited(field: str):
    """One row of the score file has another value, which leaves the score as it is."""

    def edit():
        rows = np.load("artifacts/eval_ngram/scores.npy")
        rows[field][5] += 1
        np.save("artifacts/eval_ngram/scores.npy", rows)

    return edit


def break_scores():
    Path("artifacts/eval_ttt/scores.npy").write_bytes(b"\x93NUMPY\x01\x00")


def drop_key(path, key):
    content = json.loads(Path(path).read_text())
    del content[key]
    put(path, content)


DAMAGES = {
    "scores short": (shorten_scores, "artifacts/eval_ttt/scores.npy: expected 2,000 rows.*found 1,999"),
    "scores of another text": (edited("token"), "artifacts/eval_ngram/scores.npy: its tokens are not those of"),
    "scores of another network": (
        edited("neural"),
        "artifacts/eval_ngram/scores.npy: its network.* not those of artifacts/eval_",
    ),
    "scores damaged": (break_scores, "artifacts/eval_ttt/scores.npy: not a score file"),
    "scores missing": (lambda: Path("artifacts/eval_ttt/scores.npy").unlink(), "artifacts/eval_ttt/scores.npy: missing"),
    "metric off": (
        lambda: change("reports/eval_ttt/metrics.json", val_bpb_ttt=1.0),
        "artifacts/eval_ttt/scores.npy: adds up to .* reports/eval_ttt/metrics.json says val_bpb_ttt 1.0",
    ),
    "metric not a number": (
        lambda: change("reports/eval_ttt/metrics.json", val_bpb_ttt=math.nan),
        "says val_bpb_ttt nan",
    ),
    "key missing": (
        lambda: drop_key("reports/certify/metrics.json", "legal"),
        "reports/certify/metrics.json: expected the key legal",
    ),
    "metrics of brackets": (
        lambda: put("reports/train/metrics.json", "[" * 200_000),
        "reports/train/metrics.json: not valid JSON",
    ),
    **{
        f"a clock of {value}": (
            lambda value=value: put("reports/train/timing.json", f'{{"seconds": {value}}}'),
            r"reports/train/timing.json: 'seconds' is .*, expected a number from 0",
        )
        for value in ("-5", "NaN", "1e999", '"soon"', "true", "[]")
    },
    "metrics missing": (lambda: Path("reports/train/metrics.json").unlink(), "reports/train/metrics.json: missing"),
    "metrics truncated": (lambda: put("reports/train/metrics.json", '{"a'), "reports/train/metrics.json: not valid JSON"),
    "page missing": (
        lambda: Path("artifacts/certify/certificate.md").unlink(),
        "artifacts/certify/certificate.md: missing; run",
    ),
    "page empty": (
        lambda: put("artifacts/certify/certificate.md", ""),
        r"artifacts/certify/certificate.md: not the certificate's page \(its heading is missing\)",
    ),
    "loss with a cell that is no number": (
        lambda: put("reports/train/loss.tsv", "step\tloss\n10\t6.x\n"),
        "reports/train/loss.tsv: column loss has a cell that is not a number",
    ),
    "loss with an empty cell": (
        lambda: put("reports/train/loss.tsv", "step\tloss\n10\t\n"),
        "reports/train/loss.tsv: column loss has a cell that is not a number",
    ),
    "tokenizer damaged": (
        lambda: put("artifacts/tokenize/tokenizer.model", "no model"),
        "artifacts/tokenize/tokenizer.model: the tokenizer model .* is not a SentencePiece model",
    ),
    "claim without result": (
        lambda: change(CERTIFICATE, claims=[CLAIM, {"claim": "x"}]),
        "artifacts/certify/certificate.json: claim 2 lacks condition, how, amount, passed, result",
    ),
    "loss empty": (lambda: put("reports/train/loss.tsv", ""), "reports/train/loss.tsv: not a table"),
    "loss without rows": (lambda: put("reports/train/loss.tsv", "step\tloss\n"), "reports/train/loss.tsv: .*found no row"),
    "roles without a column": (
        lambda: put("reports/compress/roles.tsv", "role\tbytes\nmatrix\t550\n"),
        "reports/compress/roles.tsv: .*found no column name, weights",
    ),
    "roles do not add up": (
        lambda: change("reports/compress/metrics.json", weights_bytes=551),
        "reports/compress/roles.tsv: adds up to 550 bytes, but .* weights_bytes 551",
    ),
}


def write(name: str, content: bytes):
    return lambda: Path("artifacts/certify", name).write_bytes(content)


def forge(**values):
    return lambda: change(CERTIFICATE, **values)


HASH = ": its SHA-256 is not the one in artifacts/certify/certificate.json"
FAILED = CLAIM | {"passed": False, "result": "no"}
FORGERIES = {
    "another artifact": (write("submission.pyz", b"another"), f"artifacts/certify/submission.pyz{HASH}"),
    "a shorter coded text": (write("coded.fwt", CODED[:-1]), f"artifacts/certify/coded.fwt{HASH}"),
    "a longer text": (write("val.txt", TEXT * 2), f"artifacts/certify/val.txt{HASH}"),
    "no coded text": (lambda: Path("artifacts/certify/coded.fwt").unlink(), "artifacts/certify/coded.fwt: missing"),
    "edited rows": (edited("entropy"), f"artifacts/eval_ngram/scores.npy{HASH}"),
    "a smaller score": (forge(bpb=0.5), f"{CERTIFICATE}: bpb is 0.5, but .* make it 0.528"),
    "a smaller size": (forge(coded_bytes=7), f"{CERTIFICATE}: coded_bytes is 7, but .* make it 495"),
    "a part for the whole": (forge(certified_bytes=999), f"{CERTIFICATE}: bpb is"),
    "tokens that were not coded": (
        forge(certified_tokens=1999),
        f"{CERTIFICATE}: verdict is 'proved', but .* make it 'proved for",
    ),
    "a claim that fails": (forge(claims=[CLAIM, FAILED]), f"{CERTIFICATE}: verdict is 'proved', but .* make it 'refused'"),
    "legal all the same": (
        forge(claims=[FAILED], verdict="refused", reasons=["the text comes back: no"]),
        f"{CERTIFICATE}: legal is True, but .* make it False",
    ),
    "a reason left out": (forge(claims=[FAILED], verdict="refused", legal=False), f"{CERTIFICATE}: reasons is"),
    "a verdict of its own": (forge(verdict="proved beyond doubt"), f"{CERTIFICATE}: verdict is 'proved beyond doubt'"),
    "a truth value for a number": (forge(bpb=True), f"{CERTIFICATE}: 'bpb' is True, which `certify` never writes"),
    "no number": (forge(bpb=math.nan), f"{CERTIFICATE}: bpb is nan"),
    "no hash of scores": (forge(scores_sha256={}), f"{CERTIFICATE}: scores_sha256 lacks eval_sliding, eval_ttt, eval_ngram"),
    "no hash": (lambda: drop_key(CERTIFICATE, "coded_sha256"), f"{CERTIFICATE} lacks coded_sha256"),
    "an estimate of its own": (
        forge(estimates={"eval_sliding": 1.0, "eval_ttt": 1.0, "eval_ngram": 1.0}),
        "reports/eval_sliding/metrics.json: val_bpb_sliding is",
    ),
    "a smaller artifact": (
        lambda: change("reports/compress/metrics.json", artifact_bytes=7, weights_bytes=550),
        "reports/compress/metrics.json: artifact_bytes is 7, but artifacts/certify/submission.pyz has 700 bytes",
    ),
    "other metrics": (
        lambda: change("reports/certify/metrics.json", certified_bpb=0.5),
        f"reports/certify/metrics.json: certified_bpb is 0.5, but {CERTIFICATE} makes it 0.528",
    ),
    "other metrics of the verdict": (
        lambda: change("reports/certify/metrics.json", legal=None),
        f"reports/certify/metrics.json: legal is None, but {CERTIFICATE} makes it True",
    ),
}


def refused(sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as error:
        report.main()
    assert "dvc repro" in str(error.value) and "\n" not in str(error.value)
    assert not Path("reports/summary.json").exists()


@pytest.mark.parametrize("name", FORGERIES)
def test_what_does_not_follow_from_the_certificate_is_refused(workplace, name):
    forgery, sentence = FORGERIES[name]
    forgery()
    refused(sentence)


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_input_is_named_and_nothing_is_written(workplace, name):
    damage, sentence = DAMAGES[name]
    damage()
    refused(sentence)
    assert not Path("reports/report").exists()
