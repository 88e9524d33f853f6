"""The independent verifier, run as its user would: an honest run agrees, and whatever is tampered with is found and named.

The run is made here by hand with numpy and struct. Its submission.pyz holds the text that it "decodes".
"""

import ast
import contextlib
import hashlib
import io
import json
import math
import runpy
import struct
import subprocess
import sys
import zipfile
from binascii import crc32, crc_hqx
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

VERIFY = Path(__file__).with_name("verify.py")
SCORE = [("token", "<u2"), ("bytes", "u1"), ("order", "u1"), ("neural", "<f4"), ("nats", "<f4"), ("entropy", "<f4")]
PIECES = [b"\0", b"the ", b"cat", b" ", "é".encode(), b"s", b"ro", b"dog\n"]
KEYS = {"eval_sliding": "val_bpb_sliding", "eval_ttt": "val_bpb_ttt", "eval_ngram": "val_bpb_ngram"}
FULL, TOKENS = 16_384, 17_000
BLOCKS = (FULL, 60)  # tokens; those after them are scored, not coded
ARITHMETIC = "x86_64, torch 2, 1 thread, é"
DECODER = """
import sys, zipfile
assert sys.argv[1:] == ["decompress", "coded.fwt", "text"], sys.argv
assert open("coded.fwt", "rb").read(4) == b"FWYT"
open("text", "wb").write(zipfile.ZipFile(sys.argv[0]).read("answer"))
"""


def score_rows(tokens: np.ndarray, seed: int) -> np.ndarray:
    rows = np.zeros(len(tokens), SCORE)
    rows["token"], rows["bytes"] = tokens, [len(PIECES[token].strip(b"\0")) for token in tokens]
    rows["nats"] = np.random.default_rng(seed).exponential(2.0, len(tokens))
    return rows


def coded_file(submission: bytes, rows: np.ndarray) -> bytes:
    artifact, arithmetic = (hashlib.sha256(named).digest()[:8] for named in (submission, ARITHMETIC.encode()))
    content = struct.pack("<4sB8sI8s", b"FWYT", 4, artifact, sum(BLOCKS), arithmetic)
    content += struct.pack("<I", crc32(content))
    for part in np.split(rows, np.cumsum(BLOCKS))[: len(BLOCKS)]:
        payload = bytes(4 * math.ceil(part["nats"].sum(dtype=np.float64) / math.log(2) / 32))
        head = struct.pack("<I", len(payload) // 4)[:3] + struct.pack("<I", crc32(part["token"].tobytes()))
        content += head + struct.pack("<H", crc_hqx(head + payload, 0xFFFF)) + payload
    return content


def write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def summary_of(scores: dict[str, np.ndarray], text: bytes) -> dict[str, float]:
    """Each score's sum in bits over the bytes of the documents, as the report rounds it."""
    text_bytes = len(text.replace(b"\0", b""))
    bits = {KEYS[stage]: float(rows["nats"].sum(dtype=np.float64)) / math.log(2) for stage, rows in scores.items()}
    return {key: round(total / text_bytes, 6) for key, total in bits.items()}


@pytest.fixture
def root(tmp_path) -> Path:
    """A repository after `dvc repro`, as far as the verifier looks at it: tokens of three documents."""
    tokens = np.random.default_rng(1).integers(1, len(PIECES), TOKENS)
    tokens[[50, 300]] = 0
    text = b"".join(PIECES[token] for token in tokens)
    scores = {stage: score_rows(tokens, seed) for seed, stage in enumerate(KEYS)}
    certified = tmp_path / "artifacts/certify"
    certified.mkdir(parents=True)
    with zipfile.ZipFile(certified / "submission.pyz", "w") as archive:
        archive.writestr("__main__.py", DECODER)
        archive.writestr("answer", b"".join(PIECES[token] for token in tokens[: sum(BLOCKS)]))
    submission = (certified / "submission.pyz").read_bytes()
    (certified / "val.txt").write_bytes(text)
    (certified / "coded.fwt").write_bytes(coded_file(submission, scores["eval_ngram"]))
    certificate = {"submission_sha256": submission, "val_documents_sha256": text}
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in certificate.items()}
    write_json(certified / "certificate.json", digests | {"certified_tokens": sum(BLOCKS), "arithmetic": ARITHMETIC})
    for stage, rows in scores.items():
        (tmp_path / "artifacts" / stage).mkdir()
        np.save(tmp_path / "artifacts" / stage / "scores.npy", rows)
    summary = summary_of(scores, text)
    write_json(
        tmp_path / "reports/summary.json",
        summary | {"val_bpb": summary["val_bpb_ngram"], "artifact_bytes": len(submission)},
    )
    return tmp_path


def verify(root: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and last line of the script, run in this process."""
    out, command = io.StringIO(), [str(VERIFY), str(root), *arguments]
    with contextlib.redirect_stdout(out), mock.patch.object(sys, "argv", command), pytest.raises(SystemExit) as ended:
        runpy.run_path(str(VERIFY), run_name="__main__")
    return ended.value.code, out.getvalue().splitlines()[-1]


@pytest.mark.parametrize("arguments", [(), ("--decode",)])
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
    """Nats of all stages halved, and a summary made from them: only the coded text knows better."""
    scores = {stage: np.load(root / "artifacts" / stage / "scores.npy") for stage in KEYS}
    for stage, table in scores.items():
        table["nats"] /= 2
        np.save(root / "artifacts" / stage / "scores.npy", table)
    summary = summary_of(scores, (root / "artifacts/certify/val.txt").read_bytes())
    for key, bpb in {**summary, "val_bpb": summary["val_bpb_ngram"]}.items():
        entry(SUMMARY, key, bpb)(root)


SUMMARY, CERTIFICATE = "reports/summary.json", "artifacts/certify/certificate.json"
CODED, SUBMISSION, TEXT = "coded.fwt", "submission.pyz", "val.txt"
FORGERIES = {  # each with what the last line must say
    "a nat": (cell("eval_ttt", 7, "nats", 0.0), "val_bpb_ttt"),
    "a nat of the last stage": (cell("eval_ngram", TOKENS - 1, "nats", 9.0), "val_bpb_ngram"),
    "all nats and the summary": (halve_everything, "NOT verified: bits coded"),
    "no number": (cell("eval_sliding", 7, "nats", np.nan), "eval_sliding: scores that are no −ln of a probability: 1"),
    "an infinite one": (cell("eval_ngram", 7, "nats", np.inf), "eval_ngram: scores that are no −ln of a probability: 1"),
    "a probability above 1": (cell("eval_ngram", 7, "nats", -0.1), "eval_ngram: scores that are no −ln of a probability: 1"),
    "a byte count": (cell("eval_sliding", 7, "bytes", 9), "eval_sliding: sum of its bytes"),
    "byte counts of one sum": (rows("eval_ngram", move_a_byte), "tokens that spell one thing here, another there"),
    "a token": (cell("eval_ttt", 399, "token", 0), "eval_ttt: tokens as eval_ngram's: False"),
    "a token of the last stage": (cell("eval_ngram", FULL + 20, "token", 0), "blocks of other tokens than were scored: [2]"),
    "a row removed": (rows("eval_sliding", lambda table: table[:-1]), "eval_sliding: rows: 65999, reported 66000"),
    "a file of other columns": (rows("eval_ttt", lambda table: table["nats"]), "not what it should be"),
    "val.txt cut": (content(TEXT, lambda text: text[:-1]), "SHA-256 of val.txt"),
    "a NUL more": (content(TEXT, lambda text: text + b"\0"), "NULs between documents"),
    "no text": (content(TEXT, lambda text: b""), "SHA-256 of val.txt"),
    "a longer artifact": (content(SUBMISSION, lambda archive: archive + b"\0"), "bytes of submission.pyz"),
    "another artifact": (flip(SUBMISSION, 60), "SHA-256 of submission.pyz"),
    "made by another artifact": (flip(CODED, 5), "made by submission"),
    "another version": (flip(CODED, 4), "coded.fwt: format"),
    "the arithmetic": (flip(CODED, 20), "SHA-256 of the arithmetic"),
    "the arithmetic of the certificate": (entry(CERTIFICATE, "arithmetic", "pdp11"), "SHA-256 of the arithmetic"),
    "the payload": (flip(CODED, -2), "damaged blocks: [2]"),
    "a token less": (content(CODED, a_token_less), "blocks of other tokens than were scored: [2]"),
    "code cut off": (content(CODED, lambda coded: coded[:-1]), "damaged blocks: [2]"),
    "code cut off in a header": (content(CODED, lambda coded: coded[:35]), "not what it should be"),
    "code with a tail": (content(CODED, lambda coded: coded + b"\0"), "bytes after the last block: 1"),
    "a score in the summary": (entry(SUMMARY, "val_bpb_sliding", 1.0), "val_bpb_sliding"),
    "the score": (entry(SUMMARY, "val_bpb", 1.0), "val_bpb: "),
    "the size": (entry(SUMMARY, "artifact_bytes", 100), "bytes of submission.pyz"),
    "the amount certified": (entry(CERTIFICATE, "certified_tokens", 400), "tokens coded: 65596, reported 400"),
    "the digest": (entry(CERTIFICATE, "submission_sha256", "ab"), "SHA-256 of submission.pyz"),
    "an empty summary": (lambda root: write_json(root / SUMMARY, {}), "KeyError: 'artifact_bytes'"),
}


@pytest.mark.parametrize("forge, named", FORGERIES.values(), ids=FORGERIES)
def test_a_forgery_is_found_and_named(root, forge, named):
    forge(root)
    status, verdict = verify(root)
    assert status == 1 and verdict.startswith("NOT verified: ") and named in verdict


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text + b"s", lambda text: b"x" + text[1:]])
def test_a_decoder_that_gives_another_text_is_found(root, change):
    """Whole and well described, so that nothing else gives it away."""
    archive = root / "artifacts/certify/submission.pyz"
    with zipfile.ZipFile(archive) as old:
        answer = old.read("answer")
    with zipfile.ZipFile(archive, "w") as new:
        new.writestr("__main__.py", DECODER)
        new.writestr("answer", change(answer))
    submission = archive.read_bytes()
    entry(SUMMARY, "artifact_bytes", len(submission))(root)
    entry(CERTIFICATE, "submission_sha256", hashlib.sha256(submission).hexdigest())(root)
    scores = np.load(root / "artifacts/eval_ngram/scores.npy")
    (root / "artifacts/certify/coded.fwt").write_bytes(coded_file(submission, scores))
    assert verify(root) == (0, "verified")
    status, verdict = verify(root, "--decode")
    assert status == 1 and verdict.startswith("NOT verified: SHA-256 of what was decoded")


def test_a_decoder_that_fails_is_found(root):
    flip(SUBMISSION, 60)(root)
    status, verdict = verify(root, "--decode")
    assert status == 1 and "decompress" in verdict


@pytest.mark.parametrize(
    "name",
    [SUMMARY, CERTIFICATE, "artifacts/eval_ttt/scores.npy", *(f"artifacts/certify/{n}" for n in (CODED, SUBMISSION, TEXT))],
)
def test_a_missing_file_is_one_sentence(root, name):
    (root / name).unlink()
    status, verdict = verify(root)
    assert status == 1 and verdict == f"NOT verified: {root / name} is missing, run `dvc repro` or `dvc pull`"


def test_it_stands_alone_and_is_short():
    source = VERIFY.read_text(encoding="utf-8")
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        name
        for node in imports
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    }
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"numpy"}
    assert "import_module" not in source and "__import__" not in source
    assert len(source.splitlines()) <= 150
