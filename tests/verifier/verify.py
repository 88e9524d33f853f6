"""An independent check of a finished run, for sceptics: python tests/verifier/verify.py [ROOT] [--decode]

It shares no code with fairway: numpy and the standard library only. It believes the raw rows of the score files and the
validation text, nothing that was computed from them, and works out again what the summary and the certificate report.
With --decode it also runs the submission in an empty folder and compares what comes back (minutes; needs its libraries).
It cannot see how the model was trained, nor whether a decoder could have had the scores of text beyond the coded part.
"""

import argparse
import hashlib
import json
import math
import struct
import subprocess
import sys
import tempfile
from binascii import crc32, crc_hqx
from collections.abc import Iterator
from pathlib import Path

import numpy as np

STAGES = {"eval_sliding": "val_bpb_sliding", "eval_ttt": "val_bpb_ttt", "eval_ngram": "val_bpb_ngram"}  # → key in the summary
ROUNDING = 5e-6  # bits per byte; the summary has six places
CODED_TOLERANCE, BITS_TO_SPARE = 1e-3, 64  # of the scored bits; and what a range coder may lose at the end of a block
MAGIC, VERSION, BLOCK_TOKENS = b"FWYT", 4, 16_384
HEADER = "<4sB8sI8sI"


def row(what: str, recomputed: object, reported: object, agrees: bool | None = None) -> tuple:
    """Of the table. Equal values agree, unless told otherwise."""
    return what, recomputed, reported, recomputed == reported if agrees is None else agrees


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def check(root: Path, decode: bool) -> Iterator[tuple]:
    """One row a fact. Raises FileNotFoundError, and whatever a file that is not what it should be leads to."""
    certified = root / "artifacts/certify"
    summary = json.loads((root / "reports/summary.json").read_bytes())
    certificate = json.loads((certified / "certificate.json").read_bytes())
    text, submission = (certified / "val.txt").read_bytes(), (certified / "submission.pyz").read_bytes()
    yield row("bytes of submission.pyz", len(submission), summary["artifact_bytes"])
    yield row("SHA-256 of submission.pyz", sha256(submission), certificate["submission_sha256"])
    yield row("SHA-256 of val.txt", sha256(text), certificate["val_documents_sha256"])
    scores = {stage: np.load(root / "artifacts" / stage / "scores.npy") for stage in STAGES}
    yield from check_scores(scores, text, summary)
    rows = scores["eval_ngram"]
    arithmetic = sha256(certificate["arithmetic"].encode())[:16]
    coded = yield from check_coded((certified / "coded.fwt").read_bytes(), sha256(submission)[:16], arithmetic, rows)
    yield row("tokens coded", coded, certificate["certified_tokens"])
    if decode:
        end = int(np.maximum(rows["bytes"][:coded], 1).sum(dtype=np.int64))  # a row of no byte is a NUL
        yield row("SHA-256 of what was decoded, of val.txt so far", sha256(run_decoder(certified)), sha256(text[:end]))


def check_scores(scores: dict[str, np.ndarray], text: bytes, summary: dict) -> Iterator[tuple]:
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
        for name in (key, "val_bpb") if stage == "eval_ngram" else (key,):
            yield row(name, f"{bpb:.6f}", summary[name], abs(bpb - summary[name]) <= ROUNDING)
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
    yield row("coded.fwt: tokens that were scored", min(tokens, len(rows)), tokens)
    starts, payload_bytes, damaged, others = range(0, min(tokens, len(rows)), BLOCK_TOKENS), 0, [], []
    for number, start in enumerate(starts, 1):
        low, high, token_crc, check = struct.unpack_from("<HBIH", content, place)
        payload = content[place + 9 :][: (size := 4 * (high << 16 | low))]
        scored = rows["token"][start : min(start + BLOCK_TOKENS, tokens)].astype("<u2").tobytes()
        if len(payload) != size or crc_hqx(content[place : place + 7] + payload, 0xFFFF) != check:
            damaged.append(number)
        if crc32(scored) != token_crc:
            others.append(number)
        place, payload_bytes = place + 9 + size, payload_bytes + size
    yield row("coded.fwt: damaged blocks", damaged, [])
    yield row("coded.fwt: blocks of other tokens than were scored", others, [])
    yield row("coded.fwt: bytes after the last block", len(content) - place, 0)
    coded_bits, scored_bits = 8 * payload_bytes, rows["nats"][:tokens].sum(dtype=np.float64) / math.log(2)
    close = abs(coded_bits - scored_bits) <= CODED_TOLERANCE * scored_bits + BITS_TO_SPARE * len(starts)
    yield row("bits coded, bits of eval_ngram's scores", coded_bits, f"{scored_bits:.0f}", close)
    return tokens


def run_decoder(certified: Path) -> bytes:
    """What the submission makes of coded.fwt, alone in a folder; its messages go to standard error."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("submission.pyz", "coded.fwt"):
            (Path(folder) / name).write_bytes((certified / name).read_bytes())
        command = [sys.executable, "-I", "submission.pyz", "decompress", "coded.fwt", "text"]
        subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
        return (Path(folder) / "text").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description="Check a finished run of Fairway without Fairway.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="a repository after `dvc repro`; default: here")
    parser.add_argument("--decode", action="store_true", help="also decode the coded text with submission.pyz: minutes")
    arguments = parser.parse_args()
    wrong = []
    print(f"{'what':54} {'recomputed':>20} {'reported':>20}  agrees")
    try:
        for what, recomputed, reported, agrees in check(arguments.root, arguments.decode):
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
