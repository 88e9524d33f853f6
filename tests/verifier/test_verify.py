"""The independent verifier, run as its user would: an honest run agrees, and whatever is tampered with is found and named.

The run is that of finished_run.py.
"""

import ast
import contextlib
import io
import json
import runpy
import struct
import subprocess
import sys
import tempfile
import zipfile
from binascii import crc32
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from tests.verifier import alone
from tests.verifier.finished_run import (
    BLOCKS,
    CERTIFICATE,
    CODED,
    DECODER,
    FULL,
    KEYS,
    SCORE,
    SUBMISSION,
    SUMMARY,
    TEXT,
    coded_file,
    make,
    seal,
    write_json,
    zipped,
)

VERIFY = Path(__file__).with_name("verify.py")
FENCED = alone.possible(tempfile.mkdtemp())
DECODE = ("--decode",) if FENCED else ("--decode", "--unfenced")


@pytest.fixture
def root(tmp_path) -> Path:
    make(tmp_path)
    return tmp_path


def verify(root: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and last line of the script, run in this process."""
    out, command = io.StringIO(), [str(VERIFY), str(root), *arguments]
    with contextlib.redirect_stdout(out), mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(VERIFY), run_name="__main__")
    said = isinstance(ended.value.code, str)  # sys.exit of a sentence is status 1
    return (1, ended.value.code) if said else (ended.value.code, out.getvalue().splitlines()[-1])


@pytest.mark.parametrize("arguments", [(), DECODE])
def test_an_honest_run_is_verified(root, arguments):
    command = [sys.executable, "-I", str(VERIFY), str(root), *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, check=True)
    assert finished.stdout.endswith("\nverified\n")
    assert verify(root, *arguments) == (0, "verified")


def test_a_failed_check_is_the_exit_status(root):
    (root / SUMMARY).unlink()
    command = [sys.executable, "-I", str(VERIFY), str(root)]
    assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 1


def test_the_current_folder_is_the_default(root):
    finished = subprocess.run([sys.executable, str(VERIFY)], cwd=root, capture_output=True, text=True, check=False)
    assert finished.stdout.endswith("\nverified\n")


# What a forger may do: functions that change one thing in the repository.
Forgery = Callable[[Path], None]


def rows(stage: str, change: Callable[[np.ndarray], np.ndarray]) -> Forgery:
    def forge(root: Path) -> None:
        path = root / "artifacts" / stage / "scores.npy"
        np.save(path, change(np.load(path)))

    return forge


def cell(stage: str, index: int, field: str, value: float) -> Forgery:
    def change(table: np.ndarray) -> np.ndarray:
        table[field][index] = value
        return table

    return rows(stage, change)


def content(name: str, change: Callable[[bytes], bytes]) -> Forgery:
    def forge(root: Path) -> None:
        path = root / "artifacts/certify" / name
        path.write_bytes(change(path.read_bytes()))

    return forge


def flip(name: str, index: int) -> Forgery:
    return content(name, lambda old: old[:index] + bytes([old[index] ^ 1]) + old[index + 1 :])


def entry(name: str, key: str, value: object) -> Forgery:
    def forge(root: Path) -> None:
        write_json(root / name, json.loads((root / name).read_text(encoding="utf-8")) | {key: value})

    return forge


def move_a_byte(table: np.ndarray) -> np.ndarray:
    table["bytes"][[10, 200]] += np.array([1, 255], np.uint8)  # one more, one less: the sum stays
    return table


def a_token_less(coded: bytes) -> bytes:
    """In the header, whose checksum is right; no byte of a payload changes."""
    head = coded[:13] + struct.pack("<I", sum(BLOCKS) - 1) + coded[17:25]
    return head + struct.pack("<I", crc32(head)) + coded[29:]


def halve_everything(root: Path) -> None:
    """Nats of all stages halved: only the coded text knows better."""
    for stage in KEYS:
        rows(stage, lambda table: np.array([(*row[:4], row[4] / 2, row[5]) for row in table.tolist()], SCORE))(root)


HASHED = {name: name for name in ("submission", "code", "model", "coded", "val_documents")} | {"val_tokens": "val's tokens"}
REFUTED = {"claim": "it comes back", "passed": False, "result": "it differs"}
LOCKED = "    - path: artifacts/certify/coded.fwt\n      hash: md5\n      md5: abcd\n"


def scaled(table: np.ndarray, start: int) -> np.ndarray:
    table["nats"][start : start + 60] *= 0.5
    return table


FORGERIES = {  # of files, each with what the last line must say once everything else was made to agree
    "all nats": (halve_everything, "blocks of other bits than eval_ngram's"),
    "the nats of one block": (
        rows("eval_ngram", lambda table: scaled(table, FULL)),
        "blocks of other bits than eval_ngram's: ['2",
    ),
    "no number": (cell("eval_sliding", 7, "nats", np.nan), "eval_sliding: scores that are no −ln of a probability: 1"),
    "an infinite one": (cell("eval_ngram", 7, "nats", np.inf), "eval_ngram: scores that are no −ln of a probability: 1"),
    "a probability above 1": (cell("eval_ngram", 7, "nats", -0.1), "eval_ngram: scores that are no −ln of a probability: 1"),
    "a byte count": (cell("eval_sliding", 7, "bytes", 9), "eval_sliding: sum of its bytes"),
    "byte counts of one sum": (rows("eval_ngram", move_a_byte), "tokens that spell one thing here, another there"),
    "a token": (cell("eval_ttt", 399, "token", 0), "eval_ttt: tokens as eval_ngram's: False"),
    "a token of the last stage": (cell("eval_ngram", FULL + 20, "token", 0), "blocks of other tokens than were scored: [2]"),
    "a row removed": (rows("eval_sliding", lambda table: table[:-1]), "eval_sliding: rows: 16999, reported 17000"),
    "a NUL more": (content(TEXT, lambda text: text + b"\0"), "NULs between documents"),
    "made by another artifact": (flip(CODED, 5), "made by submission"),
    "another version": (flip(CODED, 4), "coded.fwt: format"),
    "the arithmetic": (flip(CODED, 20), "SHA-256 of the arithmetic"),
    "the payload": (flip(CODED, -2), "damaged blocks: [2]"),
    "a token less": (content(CODED, a_token_less), "blocks of other tokens than were scored: [2]"),
    "code cut off": (content(CODED, lambda coded: coded[:-1]), "damaged blocks: [2]"),
    "code cut off in a header": (content(CODED, lambda coded: coded[:35]), "not what it should be"),
    "code with a tail": (content(CODED, lambda coded: coded + b"\0"), "bytes after the last block: 1"),
}
EDITS = {  # of one file and nothing else
    "a nat": (cell("eval_ttt", 7, "nats", 0.0), "SHA-256 of eval_ttt/scores.npy"),
    "a file of other columns": (rows("eval_ttt", lambda table: table["nats"]), "not what it should be"),
    "val.txt cut": (content(TEXT, lambda text: text[:-1]), "SHA-256 of val_documents"),
    "no text": (content(TEXT, lambda text: b""), "SHA-256 of val_documents"),
    "a longer artifact": (content(SUBMISSION, lambda archive: archive + b"\0"), "bytes of submission.pyz"),
    "another artifact": (flip(SUBMISSION, 60), "not what it should be: BadZipFile"),
    "dvc.lock": (lambda root: (root / "dvc.lock").write_text(LOCKED), "MD5 of artifacts/certify/coded.fwt"),
    "the arithmetic of the certificate": (entry(CERTIFICATE, "arithmetic", "pdp11"), "SHA-256 of the arithmetic"),
    "a score in the summary": (entry(SUMMARY, "val_bpb_sliding", 1.0), "val_bpb_sliding"),
    "the score": (entry(SUMMARY, "val_bpb", 1.0), "summary: val_bpb: "),
    "what is proved": (entry(SUMMARY, "legal", True), "summary: legal: None, reported True"),
    "the size": (entry(SUMMARY, "artifact_bytes", 100), "bytes of submission.pyz"),
    "an estimate": (entry(CERTIFICATE, "estimates", dict.fromkeys(KEYS, 1.0)), "estimate of eval_ngram"),
    "the amount certified": (entry(CERTIFICATE, "certified_tokens", 400), "certified_tokens: 16444, reported 400"),
    "a refused run": (entry(CERTIFICATE, "claims", [REFUTED]), "claims that fail: ['it comes back: it differs']"),
    "a verdict": (entry(CERTIFICATE, "verdict", "proved"), "certificate: verdict: proved for 16,444 of 17,000 tokens"),
    "legal": (entry(CERTIFICATE, "legal", True), "certificate: legal"),
    "the score of record": (entry(CERTIFICATE, "bpb", 0.5), "certificate: bpb"),
    "an empty summary": (lambda root: write_json(root / SUMMARY, {}), "KeyError: 'artifact_bytes'"),
    **{f"hash of {name}": (entry(CERTIFICATE, f"{name}_sha256", "ab"), f"SHA-256 of {said}") for name, said in HASHED.items()},
    "hash of scores": (entry(CERTIFICATE, "scores_sha256", dict.fromkeys(KEYS, "ab")), "SHA-256 of eval_ttt/scores.npy"),
}


@pytest.mark.parametrize("forge, named", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_found_though_all_else_was_made_to_agree(root, forge, named):
    forge(root)
    with contextlib.suppress(ValueError):  # a sum that is no number
        seal(root)
    status, verdict = verify(root)
    assert status == 1 and verdict.startswith("NOT verified: ") and named in verdict


@pytest.mark.parametrize("forge, named", EDITS.values(), ids=EDITS)
def test_an_edited_file_is_found_and_named(root, forge, named):
    forge(root)
    status, verdict = verify(root)
    assert status == 1 and verdict.startswith("NOT verified: ") and named in verdict


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text + b"s", lambda text: b"x" + text[1:]])
def test_a_decoder_that_gives_another_text_is_found(root, change):
    """Whole and well described, so that nothing else gives it away."""
    with zipfile.ZipFile(root / "artifacts/certify/submission.pyz") as old:
        answer = old.read("answer")
    put_submission(root, DECODER, change(answer))
    assert verify(root) == (0, "verified")
    status, verdict = verify(root, *DECODE)
    assert status == 1 and verdict.startswith("NOT verified: SHA-256 of what was decoded")


def put_submission(root: Path, decoder: str, answer: bytes) -> None:
    """Another submission, all of whose facts agree with its files."""
    (root / "artifacts/certify" / SUBMISSION).write_bytes(submission := zipped(decoder, answer))
    scores = np.load(root / "artifacts/eval_ngram/scores.npy")
    (root / "artifacts/certify" / CODED).write_bytes(coded_file(submission, scores))
    seal(root)


THIEF = """import glob, sys
for place in [*glob.glob({path!r}), *glob.glob("/proc/*/cwd/artifacts/certify/val.txt")]:
    sys.stdout.buffer.write(open(place, "rb").read()[:{size}]); break
"""


def test_a_decoder_that_reads_the_text_where_it_lies_gets_nothing(root):
    path = root / "artifacts/certify/val.txt"
    size = json.loads((root / CERTIFICATE).read_text())["certified_bytes"]
    put_submission(root, THIEF.format(path=str(path), size=size), b"")
    assert verify(root, "--decode", "--unfenced") == (0, "verified")
    status, verdict = verify(root, "--decode")
    assert status == 1 and verdict.startswith("NOT verified: " + ("SHA-256 of what was decoded" if FENCED else "this system"))


def test_where_no_fence_is_possible_no_decoder_runs(root, monkeypatch):
    monkeypatch.setenv("PATH", str(root))  # no unshare
    status, verdict = verify(root, "--decode")
    assert status == 1 and "permits no namespaces" in verdict


def test_a_decoder_that_fails_is_found(root):
    put_submission(root, "raise SystemExit(3)", b"")
    status, verdict = verify(root, *DECODE)
    assert status == 1 and "SHA-256 of what was decoded" in verdict


@pytest.mark.parametrize(
    "name",
    [SUMMARY, CERTIFICATE, "artifacts/eval_ttt/scores.npy", *(f"artifacts/certify/{n}" for n in (CODED, SUBMISSION, TEXT))],
)
def test_a_missing_file_is_one_sentence(root, name):
    (root / name).unlink()
    status, verdict = verify(root)
    assert status == 1 and verdict == f"NOT verified: {root / name} is missing, run `dvc repro` or `dvc pull`"


def test_it_stands_alone_and_is_short():
    source = VERIFY.read_text(encoding="utf-8") + VERIFY.with_name("alone.py").read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name
        for node in imports
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"numpy", "alone"}
    assert "import_module" not in source and "__import__" not in source
    assert len(source.splitlines()) <= 310
