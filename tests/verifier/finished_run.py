"""A finished run made by hand with numpy and struct, for the tests of the verifier.

Its submission.pyz holds the text that it "decodes".
"""

import hashlib
import io
import json
import math
import struct
import zipfile
from binascii import crc32, crc_hqx
from pathlib import Path

import numpy as np

SUMMARY, CERTIFICATE = "reports/summary.json", "artifacts/certify/certificate.json"
CODED, SUBMISSION, TEXT = "coded.fwt", "submission.pyz", "val.txt"
SCORE = [("token", "<u2"), ("bytes", "u1"), ("order", "u1"), ("neural", "<f4"), ("nats", "<f4"), ("entropy", "<f4")]
PIECES = [b"\0", b"the ", b"cat", b" ", "é".encode(), b"s", b"ro", b"dog\n"]
KEYS = {"eval_sliding": "val_bpb_sliding", "eval_ttt": "val_bpb_ttt", "eval_ngram": "val_bpb_ngram"}
FULL, TOKENS = 16_384, 17_000
BLOCKS = (FULL, 60)  # tokens; those after them are scored, not coded
ARITHMETIC = "x86_64, torch 2, 1 thread, é"
DECODER = """
import sys, zipfile
assert sys.argv[1:] == ["decompress", "coded.fwt", "-"], sys.argv
assert open("coded.fwt", "rb").read(4) == b"FWYT"
sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[0]).read("answer"))
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


def make(tmp_path: Path) -> None:
    """A repository after `dvc repro`, as far as the verifier looks at it: tokens of three documents."""
    tokens = np.random.default_rng(1).integers(1, len(PIECES), TOKENS)
    tokens[[50, 300]] = 0
    text = b"".join(PIECES[token] for token in tokens)
    scores = {stage: score_rows(tokens, seed) for seed, stage in enumerate(KEYS)}
    certified = tmp_path / "artifacts/certify"
    certified.mkdir(parents=True)
    answer = b"".join(PIECES[token] for token in tokens[: sum(BLOCKS)])
    (certified / "submission.pyz").write_bytes(zipped(DECODER, answer))
    (certified / "val.txt").write_bytes(text)
    (certified / "coded.fwt").write_bytes(coded_file((certified / "submission.pyz").read_bytes(), scores["eval_ngram"]))
    for stage, rows in scores.items():
        (tmp_path / "artifacts" / stage).mkdir()
        np.save(tmp_path / "artifacts" / stage / "scores.npy", rows)
    seal(tmp_path)


def zipped(decoder: str, answer: bytes) -> bytes:
    with io.BytesIO() as stream:
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in (("__main__.py", decoder), ("answer", answer), ("code", b"code"), ("model.fwy", b"model")):
                archive.writestr(name, content)
        return stream.getvalue()


def seal(root: Path) -> None:
    """The certificate, the summary and dvc.lock of the files that are there, as a forger would write them too."""
    certified, tokens = root / "artifacts/certify", sum(BLOCKS)
    text, submission, coded = ((certified / name).read_bytes() for name in (TEXT, SUBMISSION, CODED))
    scores = {stage: np.load(root / "artifacts" / stage / "scores.npy") for stage in KEYS}
    summary, rows = summary_of(scores, text), scores["eval_ngram"]
    part = text[: int(np.maximum(rows["bytes"][:tokens], 1).sum(dtype=np.int64))]
    with zipfile.ZipFile(certified / SUBMISSION) as archive:
        decoder = archive.read("__main__.py")
    hashed = {"submission": submission, "code": decoder + b"code", "model": b"model", "coded": coded}
    hashed |= {"val_documents": text, "val_tokens": bytes(2) + rows["token"].tobytes()}
    bpb = round(8 * len(coded) / (len(part) - part.count(0)), 6)
    certificate = {f"{name}_sha256": hashlib.sha256(content).hexdigest() for name, content in hashed.items()} | {
        "scores_sha256": {stage: sha256(root / "artifacts" / stage / "scores.npy") for stage in KEYS},
        "estimates": {stage: summary[key] for stage, key in KEYS.items()},
        "claims": [{"claim": "the text comes back", "passed": True, "result": "identical"}],
        **{"verdict": f"proved for {tokens:,} of {len(rows):,} tokens", "legal": None, "reasons": [], "bpb": bpb},
        **{"certified_tokens": tokens, "val_tokens": len(rows), "coded_bytes": len(coded), "certified_bytes": len(part)},
        "arithmetic": ARITHMETIC,
    }
    summary |= {"val_bpb": summary["val_bpb_ngram"], "artifact_bytes": len(submission), "legal": None}
    write_json(certified / "certificate.json", certificate)
    write_json(root / SUMMARY, summary | {"certified_tokens": tokens, "certified_bpb": bpb})
    outs = [path for path in sorted((root / "artifacts").glob("*/*")) if path.is_file()]
    lines = (f"    - path: {path.relative_to(root)}\n      hash: md5\n      md5: {md5(path)}\n" for path in outs)
    (root / "dvc.lock").write_text("".join(lines))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
