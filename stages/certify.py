"""certify: seal the predictor's settings into submission.pyz, code and decode real text with it, and write the certificate.

The sealed file is the submission. It runs by itself in a sandbox, in fresh processes that cannot import the repository.
The other claims are checked here, on the score files and with the real scorer, using the weights and the tokenizer in the
sealed file. A certificate is written whatever the result.
"""

import dataclasses
import io
import math
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from fairway.codec.config import Compress
from fairway.mixture.config import Cache, Ngram
from fairway.params import load, read_yaml
from fairway.proof import certificate, checks, clocks, round_trip, rules
from fairway.proof.checks import Data
from fairway.proof.coded import Coded
from fairway.proof.config import Certify
from fairway.proof.prefix import cut
from fairway.score import files
from fairway.score.config import Eval, Settings, Ttt
from fairway.score.streaming import learned_chunks
from fairway.submission import packing
from fairway.text.documents import read_documents
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from stages.common import ARTIFACTS, PARAMS, REPORTS, read_json, read_timing, run, write_bytes, write_json

OUT, REPORT = ARTIFACTS / "certify", REPORTS / "certify"
EVALS = ("eval_sliding", "eval_ttt", "eval_ngram")
SECTIONS = {"eval": Eval, "ttt": Ttt, "cache": Cache, "ngram": Ngram}
SPLITS = ("train", "holdout", "val")
LEDGERS = ("train", "prequant_ttt", "quant")
TIMED = ("train", "prequant_ttt", "quant", "compress", *EVALS)


def main() -> None:
    start = time.monotonic()
    config, budget = load(PARAMS, "certify", Certify), load(PARAMS, "compress", Compress).budget_bytes
    settings = Settings(*(load(PARAMS, name, section) for name, section in SECTIONS.items()))
    submission = packing.seal((ARTIFACTS / "compress/submission.pyz").read_bytes(), settings.to_json())
    with zipfile.ZipFile(io.BytesIO(submission)) as archive:
        tokenizer, weights = Tokenizer.from_bytes(archive.read(packing.TOKENIZER)), archive.read(packing.WEIGHTS)
    splits = {name: read_split(ARTIFACTS / "tokenize" / name, tokenizer.vocabulary_size) for name in SPLITS}
    documents = list(read_documents([str(ARTIFACTS / "tokenize/val_documents.jsonl.zst")], "text"))
    rows = {name: files.read(ARTIFACTS / name / "scores.npy") for name in EVALS}
    data = Data(tokenizer, splits["val"][:], documents, rows)
    ledgers = [read_json(ARTIFACTS / stage / "ledger.json", ["stage", "val_tokens_before_scoring"]) for stage in LEDGERS]
    times = clocks.read({name: read_timing(name) for name in TIMED if (REPORTS / name / "timing.json").exists()})

    prefix, text = cut(data.stream, tokenizer, config.wanted(len(data.stream) - 1))
    targets = len(prefix) - 1
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(round_trip.run, submission, text)
        torch.set_num_threads(1)  # the codec runs on one core, the real scorer beside it
        checked = checks.scoring_claims(weights, settings, data, config)
        checked += checks.file_claims(data, splits, ledgers, config.val_documents)
    trip = pending.result()
    coded = checks.measure_coded(trip, submission, prefix[1:])
    claims = [
        *checks.coding_claims(trip, coded, text, targets, data),
        *checked,
        rules.within_budget(len(submission), budget),
        rules.within_time("train", times, config.train_seconds),
        rules.within_time("eval", times, config.eval_seconds),
    ]
    updates = learned_chunks(prefix, settings.ttt, tokenizer.bos)
    facts = {"test_time_training_updates": updates, "train_seed": read_yaml(PARAMS)["train"]["seed"]}
    facts |= {"certify": dataclasses.asdict(config), "settings": dataclasses.asdict(settings)}
    content = certificate.certificate(claims, trip, submission, data, text, targets, facts)

    write_bytes(OUT / "submission.pyz", submission)
    write_bytes(OUT / "coded.fwt", trip.compress.output or b"")
    write_bytes(OUT / "val.txt", data.text)
    write_json(OUT / "certificate.json", content)
    write_bytes(OUT / "certificate.md", certificate.page(content, times).encode())
    write_json(REPORT / "metrics.json", describe(coded, content, len(text), rows["eval_ngram"]["nats"][:targets]))
    write_json(REPORT / "timing.json", {"seconds": round(time.monotonic() - start, 2)} | timing(trip))
    for claim in claims:
        print(f"{'holds' if claim.passed else 'FAILS'}: {claim.claim}: {claim.result}", flush=True)
    print(f"certify: legal: {str(content['legal']).lower()}, {updates} updates of test-time training in the coded text")


def describe(coded: Coded | str, content: dict, text_bytes: int, nats: np.ndarray) -> dict:
    """The metrics; null if nothing was coded. `nats`: the reported scores of the coded tokens."""
    known, scored_bits = isinstance(coded, Coded), float(nats.sum(dtype=np.float64)) / math.log(2)
    return {
        "legal": content["legal"],
        "certified_tokens": content["certified_tokens"],
        "certified_bpb": round(8 * coded.payload_bytes / text_bytes, 6) if known else None,
        "coded_minus_scored_percent": round(100 * (8 * coded.payload_bytes / scored_bits - 1), 4) if known else None,
    }


def timing(trip: round_trip.RoundTrip) -> dict:
    """Seconds of both directions, and of the decoder after its start-up; null if a process failed before it reported them."""
    tokens, seconds, begin = (trip.decompress.number(name) for name in ("tokens", "seconds", "start_seconds"))
    return {
        "encode_seconds": round(trip.compress.seconds, 2),
        "decode_seconds": round(trip.decompress.seconds, 2),
        "decode_tokens_per_second": round(tokens / seconds) if seconds > 0 else None,
        "start_seconds": None if math.isnan(begin) else round(begin, 2),
    }


if __name__ == "__main__":
    run(main)
