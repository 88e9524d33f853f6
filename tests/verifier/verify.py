"""An independent check of a finished run, for skeptics: python tests/verifier/verify.py [ROOT] [--decode]

It shares no code with fairway: numpy and the standard library only. It believes the raw rows of the score files, the compressed
text and the validation text, nothing that was computed from them, and works out again every hash, size and score that the
summary and the certificate report. A run that the certificate refuses is not verified, whatever else agrees.
With --decode it also runs the submission where nothing exists but the interpreter and its libraries (alone.py), and compares
what comes back (minutes). It cannot see how the model was trained, nor what the submission knew of the text beforehand: that
is tested by `make replay` and `python -m fairway.judge --fresh`.
"""

import argparse
import hashlib
import json
import math
import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from binascii import crc32, crc_hqx
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import alone  # beside this file

STAGES = {"eval_sliding": "val_bpb_sliding", "eval_ttt": "val_bpb_ttt", "eval_ngram": "val_bpb_ngram"}  # → key in the summary
ROUNDING = 5e-6  # bits per byte; the summary has six places
# Of the scored bits; and what a range coder loses at each of the decisions, as many as a token's number has bits.
CODED_TOLERANCE, DECISION_BITS, WORD = 1e-3, 1.3e-4, 32
MAGIC, VERSION, BLOCK_TOKENS = b"FWYT", 4, 16_384
HEADER = "<4sB8sI8sI"
LEGAL = {"proved": True, "refused": False}


def row(what: str, recomputed: object, reported: object, agrees: bool | None = None) -> tuple:
    """Of the table. Equal values agree, unless told otherwise."""
    return what, recomputed, reported, recomputed == reported if agrees is None else agrees


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def check(root: Path, decoded_by: list[str]) -> Iterator[tuple]:
    """One row a fact. `decoded_by`: the words that start the decoder, none to leave it out. Raises FileNotFoundError, and
    whatever a file that is not what it should be leads to."""
    certified = root / "artifacts/certify"
    summary = json.loads((root / "reports/summary.json").read_bytes())
    certificate = json.loads((certified / "certificate.json").read_bytes())
    text, submission, coded = ((certified / name).read_bytes() for name in ("val.txt", "submission.pyz", "coded.fwt"))
    yield row("bytes of submission.pyz", len(submission), summary["artifact_bytes"])
    scores = {stage: np.load(root / "artifacts" / stage / "scores.npy") for stage in STAGES}
    rows = scores["eval_ngram"]
    yield from check_hashes(root, certificate, submission, coded, text, rows)
    yield from check_scores(scores, text, summary, certificate["estimates"])
    arithmetic = sha256(certificate["arithmetic"].encode())[:16]
    count = yield from check_coded(coded, sha256(submission)[:16], arithmetic, rows)
    part = text[: int(np.maximum(rows["bytes"][:count], 1).sum(dtype=np.int64))]  # a row of no byte is a NUL
    yield from check_verdict(certificate, summary, count, len(rows), len(coded), part)
    if decoded_by:
        yield row(
            "SHA-256 of what was decoded, of val.txt so far", sha256(run_decoder(certified, decoded_by, part)), sha256(part)
        )


def check_hashes(
    root: Path, certificate: dict, submission: bytes, coded: bytes, text: bytes, rows: np.ndarray
) -> Iterator[tuple]:
    """Every hash of the certificate's, and those of the same files in dvc.lock where there is one."""
    with zipfile.ZipFile(root / "artifacts/certify/submission.pyz") as archive:
        code, model = (b"".join(map(archive.read, names)) for names in (("__main__.py", "code"), ("model.fwy",)))
    found = {"submission": submission, "code": code, "model": model, "coded": coded, "val_documents": text}
    for name, content in found.items():
        yield row(f"SHA-256 of {name}", sha256(content), certificate[f"{name}_sha256"])
    tokens = rows["token"].astype("<u2").tobytes()  # after a BOS, which is what spells no byte
    streams = {sha256(int(bos).to_bytes(2, "little") + tokens) for bos in {0, 1, *rows["token"][rows["bytes"] == 0][:1]}}
    said = certificate["val_tokens_sha256"]
    yield row("SHA-256 of val's tokens", said if said in streams else min(streams), said)
    for stage in STAGES:
        content = (root / "artifacts" / stage / "scores.npy").read_bytes()
        yield row(f"SHA-256 of {stage}/scores.npy", sha256(content), certificate["scores_sha256"][stage])
    lock = (root / "dvc.lock").read_text(encoding="utf-8") if (root / "dvc.lock").exists() else ""
    locked = dict(re.findall(r"- path: (artifacts/(?:certify|eval_\w+)/\S+)\n\s+hash: md5\n\s+md5: (\w+)", lock))
    for path, md5 in locked.items():
        yield row(f"MD5 of {path}", hashlib.md5((root / path).read_bytes(), usedforsecurity=False).hexdigest(), md5)


def check_verdict(certificate: dict, summary: dict, count: int, whole: int, size: int, part: bytes) -> Iterator[tuple]:
    """`count` of `whole` tokens, which spell `part`, were coded in a file of `size` bytes: that decides the score."""
    failed = [f"{claim['claim']}: {claim['result']}" for claim in certificate["claims"] if not claim["passed"]]
    verdict = "proved" if count == whole else f"proved for {count:,} of {whole:,} tokens"
    verdict = "refused" if failed or not certificate["certified_tokens"] else verdict
    bpb = round(8 * size / max(1, len(part) - part.count(0)), 6)
    score = bpb if verdict == "proved" else certificate["estimates"]["eval_ngram"]
    yield row("claims that fail", failed, [], not failed)
    expected = {
        "verdict": verdict,
        "legal": LEGAL.get(verdict),
        "reasons": failed,
        "certified_tokens": count,
        "val_tokens": whole,
    }
    expected |= {"bpb": bpb, "coded_bytes": size, "certified_bytes": len(part)}
    for key, value in expected.items():
        yield row(f"certificate: {key}", value, certificate[key])
    for key, value in {"legal": LEGAL.get(verdict), "certified_tokens": count, "certified_bpb": bpb, "val_bpb": score}.items():
        yield row(f"summary: {key}", value, summary[key])


def check_scores(scores: dict[str, np.ndarray], text: bytes, summary: dict, estimates: dict) -> Iterator[tuple]:
    separators = text.count(b"\0")
    text_bytes = len(text) - separators  # of the documents: a NUL between two is a byte of neither
    best = scores["eval_ngram"]
    for stage, key in STAGES.items():
        rows, nats = scores[stage], scores[stage]["nats"].astype(np.float64)
        yield row(f"{stage}: rows", len(rows), len(best))
        yield row(f"{stage}: tokens as eval_ngram's", np.array_equal(rows["token"], best["token"]), True)
        yield row(f"{stage}: sum of its bytes, bytes of val.txt", int(rows["bytes"].sum(dtype=np.int64)), text_bytes)
        yield row(f"{stage}: scores that are no −ln of a probability", int((~(np.isfinite(nats) & (nats >= 0))).sum()), 0)
        bpb = float(nats.sum()) / math.log(2) / text_bytes
        yield row(key, f"{bpb:.6f}", summary[key], abs(bpb - summary[key]) <= ROUNDING)
        said = estimates[stage]
        yield row(f"certificate: estimate of {stage}", f"{bpb:.6f}", said, abs(bpb - said) <= ROUNDING)
    yield row("rows of no byte, NULs between documents", int((best["bytes"] == 0).sum()), separators)
    yield row("tokens that spell one thing here, another there", ambiguous_tokens(best, text), 0)


def ambiguous_tokens(rows: np.ndarray, text: bytes) -> int:
    """How many tokens would have to spell different bytes at different places for the rows to be this text."""
    spelling, ambiguous, start = {}, set(), 0
    for token, length in zip(rows["token"].copy().data, rows["bytes"].copy().data, strict=True):
        piece = text[start : start + (length or 1)]  # a row of no byte is the NUL between documents
        start += length or 1
        if spelling.setdefault(token, piece) != piece:
            ambiguous.add(token)
    return len(ambiguous)


def check_coded(content: bytes, submission: str, arithmetic: str, rows: np.ndarray) -> Iterator[tuple]:
    """Returns how many tokens the file codes. All little-endian.

    Header: magic, version, artifact, tokens, arithmetic (each the first 8 bytes of a SHA-256), CRC-32 of all that.
    A block of 16,384 tokens, the last one shorter: words of payload in three bytes, CRC-32 of the tokens as uint16, CRC-16
    (CCITT) of these seven bytes and the payload, the payload.
    """
    magic, version, artifact, tokens, coder, header_crc = struct.unpack_from(HEADER, content)
    place = struct.calcsize(HEADER)
    yield row("coded.fwt: format", (magic, version), (MAGIC, VERSION))
    yield row("coded.fwt: made by submission", artifact.hex(), submission)
    yield row("coded.fwt: SHA-256 of the arithmetic", coder.hex(), arithmetic)
    yield row("coded.fwt: CRC-32 of its header", crc32(content[: place - 4]), header_crc)
    yield row("coded.fwt: tokens, all to be scored", tokens <= len(rows), True)
    depth = int(rows["token"].max(initial=1)).bit_length()
    damaged, others, false = [], [], []
    for number, start in enumerate(range(0, min(tokens, len(rows)), BLOCK_TOKENS), 1):
        low, high, token_crc, check = struct.unpack_from("<HBIH", content, place)
        payload = content[place + 9 :][: (size := 4 * (high << 16 | low))]
        scored = rows[start : min(start + BLOCK_TOKENS, tokens)]
        bits = float(scored["nats"].sum(dtype=np.float64)) / math.log(2)
        most = (bits + DECISION_BITS * depth * len(scored)) * (1 + CODED_TOLERANCE)
        if len(payload) != size or crc_hqx(content[place : place + 7] + payload, 0xFFFF) != check:
            damaged.append(number)
        if crc32(scored["token"].astype("<u2").tobytes()) != token_crc:
            others.append(number)
        if not bits * (1 - CODED_TOLERANCE) // WORD + 1 <= 8 * size // WORD <= most // WORD + 1:
            false.append(f"{number} has {8 * size:,}, scored {bits:,.0f}")
        place += 9 + size
    yield row("coded.fwt: damaged blocks", damaged, [])
    yield row("coded.fwt: blocks of other tokens than were scored", others, [])
    yield row("coded.fwt: bytes after the last block", len(content) - place, 0)
    yield row("coded.fwt: blocks of other bits than eval_ngram's", false, [])
    return tokens


def run_decoder(certified: Path, start: list[str], expected: bytes) -> bytes:
    """What the submission makes of coded.fwt, as far as it is no longer than expected, and a byte."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("submission.pyz", "coded.fwt"):
            (Path(folder) / name).write_bytes((certified / name).read_bytes())
        command = [*start, sys.executable, "-I", "submission.pyz", "decompress", "coded.fwt", "-"]
        with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE) as process:
            found = process.stdout.read(len(expected) + 1)
            process.stdout.close()
        if process.returncode and found == expected:
            raise ValueError(f"decompress ended with status {process.returncode}")
        return found


def decoder(arguments: argparse.Namespace) -> list[str]:
    """The words before the interpreter's. Exits where a decoder would not be alone and nobody said that it need not be."""
    if not arguments.decode or arguments.unfenced:
        return ["/usr/bin/env"] if arguments.decode else []
    root = tempfile.mkdtemp()
    if not alone.possible(root):
        sys.exit(
            "NOT verified: this system permits no namespaces, and a decoder that can read all files proves nothing; "
            "--decode --unfenced runs it all the same"
        )
    return alone.command(root, [])


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a finished run of Fairway without Fairway.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="a repository after `dvc repro`; default: here")
    parser.add_argument("--decode", action="store_true", help="also decode the coded text with submission.pyz: minutes")
    parser.add_argument(
        "--unfenced", action="store_true", help="decode where no fence is possible: the decoder can read all files"
    )
    arguments = parser.parse_args()
    wrong = []
    print(f"{'what':54} {'recomputed':>20} {'reported':>20}  agrees")
    try:
        for what, recomputed, reported, agrees in check(arguments.root, decoder(arguments)):
            print(f"{what:54} {recomputed!s:>20.20} {reported!s:>20.20}  {'yes' if agrees else 'NO'}", flush=True)
            wrong += [] if agrees else [f"{what}: {recomputed}, reported {reported}"]
    except FileNotFoundError as error:
        wrong.append(f"{error.filename} is missing, run `dvc repro` or `dvc pull`")
    except Exception as error:
        wrong.append(f"a file is not what it should be: {type(error).__name__}: {error}")
    print(f"NOT verified: {'; '.join(wrong)}" if wrong else "verified")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
