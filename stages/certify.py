"""certify: seal the predictor's settings into submission.pyz, code and decode real text with it, and write down what holds.

The sealed file is the submission: it is run on its own, in an empty folder, in fresh processes that cannot import the
repository. Everything else the certificate claims is checked here on the score files and through the real scorer.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from fairway.codec.network import model_from
from fairway.codec.packing import seal
from fairway.codec.text import SAMPLED
from fairway.errors import InputError
from fairway.params import load
from fairway.proof import claims
from fairway.proof.causality import earlier_changes
from fairway.proof.config import Certify
from fairway.proof.prefix import cut
from fairway.score import files
from fairway.score.config import Cache, Eval, Ngram, Settings, Ttt
from fairway.score.streaming import learned_chunks
from fairway.score.tree_mixture import word_starts
from fairway.text.byte_count import count_bytes, table_bytes
from fairway.text.documents import read_documents
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from stages.shell import ARTIFACTS, PARAMS, REPORTS, run, write_bytes, write_json

EVALS = ("eval_sliding", "eval_ttt", "eval_ngram")
SECTIONS = {"eval": Eval, "ttt": Ttt, "cache": Cache, "ngram": Ngram}
LEDGERS = ("train", "prequant_ttt", "quant")
LIBRARIES = ("torch", "numpy", "numba", "sentencepiece", "constriction")


def main() -> None:
    start = time.monotonic()
    config = load(PARAMS, "certify", Certify)
    settings = Settings(*(load(PARAMS, name, section) for name, section in SECTIONS.items()))
    submission = seal((ARTIFACTS / "compress/submission.pyz").read_bytes(), dataclasses.asdict(settings))
    write_bytes(ARTIFACTS / "certify/submission.pyz", submission)
    tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
    stream = read_split(ARTIFACTS / "tokenize/val", tokenizer.vocabulary_size)[:]
    rows = {name: files.read(ARTIFACTS / name / "scores.npy") for name in EVALS}

    prefix, text = cut(stream, tokenizer, config.tokens)
    with ThreadPoolExecutor(1) as pool:
        coded = pool.submit(code_and_decode, ARTIFACTS / "certify/submission.pyz", text)
        torch.set_num_threads(1)  # the codec runs on one core, the causality checks beside it
        model = model_from((ARTIFACTS / "compress/model.fwy").read_bytes())
        starts = word_starts(tokenizer.pieces)
        changes = earlier_changes(model, settings, starts, prefix, config.causality_checks)
    decoded, payload_bytes, worst_sum, seconds = coded.result()
    targets = len(prefix) - 1
    nats = rows["eval_ngram"]["nats"][:targets]
    documents = list(read_documents([str(ARTIFACTS / "tokenize/val_documents.jsonl.zst")], "text"))
    scored_bytes = int(rows["eval_ngram"]["bytes"].sum(dtype=np.int64))
    budget = json.loads((REPORTS / "compress/metrics.json").read_text())
    ledgers = [json.loads((ARTIFACTS / stage / "ledger.json").read_text()) for stage in LEDGERS]
    made = [
        claims.round_trip(text, decoded),
        claims.coded_bits(payload_bytes, nats),
        claims.normalised(worst_sum, math.ceil(targets / SAMPLED)),
        claims.causal(changes, targets),
        claims.unexposed(ledgers),
        claims.scored_once(stream, {name: table["token"] for name, table in rows.items()}),
        claims.complete(tokenizer.decode(stream), documents),
        claims.bytes_of_text(documents, scored_bytes, count_bytes(stream, table_bytes(tokenizer))[0]),
        claims.within_budget(len(submission), budget["artifact_bytes"] + budget["headroom_bytes"]),
    ]
    legal = all(claim.passed for claim in made)
    updates = learned_chunks(prefix, settings.ttt, tokenizer.bos)
    certificate = {
        "legal": legal,
        "reasons": [f"{claim.claim}: {claim.result}" for claim in made if not claim.passed],
        "certified_tokens": targets,
        "test_time_training_updates": updates,
        "claims": [dataclasses.asdict(claim) for claim in made],
        "submission_sha256": hashlib.sha256(submission).hexdigest(),
        "val_documents_sha256": hashlib.sha256("\0".join(documents).encode()).hexdigest(),
        "settings": dataclasses.asdict(settings),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "device": f"{platform.machine()} CPU, one thread, float32",
    }
    write_json(ARTIFACTS / "certify/certificate.json", certificate)
    scored_bits = float(nats.sum(dtype=np.float64)) / np.log(2)
    metrics = {
        "legal": legal,
        "certified_tokens": targets,
        "certified_bpb": round(8 * payload_bytes / len(text), 6),
        "coded_minus_scored_percent": round(100 * (8 * payload_bytes / scored_bits - 1), 4),
    }
    write_json(REPORTS / "certify/metrics.json", metrics)
    write_json(REPORTS / "certify/timing.json", {"seconds": round(time.monotonic() - start, 2), **seconds})
    for claim in made:
        print(f"{'holds' if claim.passed else 'FAILS'}: {claim.claim}: {claim.result}", flush=True)
    print(f"certify: legal: {str(legal).lower()}, {updates} updates of test-time training in the coded text", flush=True)


def code_and_decode(submission: Path, text: bytes) -> tuple[bytes, int, float, dict[str, float]]:
    """The text after a round trip, bytes of its code, the sum of probabilities furthest from 1, seconds of each direction."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "submission.pyz").write_bytes(submission.read_bytes())
        (Path(folder) / "text").write_bytes(text)
        begin = time.monotonic()
        report = json.loads(run_alone(folder, "compress", "text", "coded"))
        middle = time.monotonic()
        run_alone(folder, "decompress", "coded", "decoded")
        seconds = {"encode_seconds": round(middle - begin, 2), "decode_seconds": round(time.monotonic() - middle, 2)}
        return (Path(folder) / "decoded").read_bytes(), report["payload_bytes"], report["worst_sum"], seconds


def run_alone(folder: str, *arguments: str) -> str:
    """Run the submission in `folder` with nothing of ours on its path; its standard output."""
    command = [sys.executable, "-I", "submission.pyz", *arguments]
    finished = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        raise InputError(f"submission.pyz {arguments[0]} failed with status {finished.returncode}; its message is above")
    return finished.stdout


if __name__ == "__main__":
    run(main)
