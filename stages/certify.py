"""certify: seal the predictor's settings into submission.pyz, code and decode real text with it, and write the certificate.

The sealed file is the submission. It runs by itself in a sandbox, in fresh processes that cannot import the repository.
The other claims are checked here, on the score files and with the real scorer, using the weights and the tokenizer in the
sealed file. A certificate is written whatever the result.
"""

import dataclasses
import hashlib
import math
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fairway import kernels, lock
from fairway.codec.config import Compress
from fairway.errors import InputError
from fairway.markdown import one_line
from fairway.mixture.config import Cache, Ngram
from fairway.params import load, read_yaml
from fairway.proof import (
    artifact,
    certificate,
    checks,
    claims,
    clocks,
    data_checks,
    fence,
    ledgers,
    round_trip,
    rules,
    untrusted,
    witness,
)
from fairway.proof.checks import Data
from fairway.proof.claims import Claim
from fairway.proof.coded import Coded
from fairway.proof.config import Certify
from fairway.proof.prefix import cut
from fairway.proof.round_trip import RoundTrip
from fairway.score import files
from fairway.score.config import Eval, Settings, Ttt
from fairway.score.streaming import learned_chunks
from fairway.submission import packing
from fairway.text import config as text_config
from fairway.text.documents import read_stored
from fairway.text.shards import read_split
from stages.common import ARTIFACTS, PARAMS, REPORTS, run, write_bytes, write_json

OUT, REPORT = ARTIFACTS / "certify", REPORTS / "certify"
EVALS = ("eval_sliding", "eval_ttt", "eval_ngram")
SECTIONS = {"eval": Eval, "ttt": Ttt, "cache": Cache, "ngram": Ngram}
SPLITS = ("train", "holdout", "val")
LEDGERS = ("train", "prequant_ttt", "quant")
TIMED = ("train", "prequant_ttt", "quant", "compress", *EVALS)
SHOWN = {  # names of seconds
    "causality_seconds": "scoring edited texts",
    "data_seconds": "comparing splits",
    "rescore_seconds": "scoring all of val again",
    "witness_seconds": "scoring the witness",
}
LONGEST = 1 << 20  # bytes that are read of a ledger or of clocks


class Proof(NamedTuple):
    """What came of coding `text`, the first `targets` tokens, and the claims that need the artifact."""

    trip: RoundTrip
    text: bytes
    targets: int
    coded: Coded | str  # or why it cannot be measured
    claims: list[Claim]
    updates: int  # of test-time training in the coded text
    seconds: dict[str, float]


def main() -> None:
    start = time.monotonic()
    kernels.compile_afresh()  # machine code that another stage kept could be anything
    config, budget = load(PARAMS, "certify", Certify), load(PARAMS, "compress", Compress).budget_bytes
    settings = Settings(*(load(PARAMS, name, section) for name, section in SECTIONS.items()))
    submission = packing.seal((ARTIFACTS / "compress/submission.pyz").read_bytes(), settings.to_json())
    opened = artifact.opened(submission)
    data, corpus = read_data(opened)
    times = clocks.read({name: untrusted.parsed(beginning(REPORTS / name / "timing.json")) for name in TIMED})
    learned = {stage: ledgers.read(stage, beginning(ARTIFACTS / stage / "ledger.json")) for stage in LEDGERS}

    failed = isinstance(opened, str)
    proof = unread(opened) if failed else prove(submission, opened, settings, data, corpus, config)
    claimed = [
        claims.readable(opened if failed else ""),
        *proof.claims,
        claims.unexposed(learned),
        rules.within_budget(len(submission), budget),
        rules.within_time("train", times, config.train_seconds),
        rules.within_time("eval", times, config.eval_seconds),
    ]
    claimed = [dataclasses.replace(claim, result=one_line(claim.result)) for claim in claimed]  # the submission's own words
    facts = {"scores_sha256": {name: sha256(ARTIFACTS / name / "scores.npy") for name in EVALS}, **origin()}
    facts |= {"test_time_training_updates": proof.updates, "train_seed": read_yaml(PARAMS)["train"]["seed"]}
    facts["waived"] = certificate.waived(config, len(corpus.witness))
    facts |= {"certify": dataclasses.asdict(config), "settings": dataclasses.asdict(settings)}
    content = certificate.certificate(claimed, proof.trip, submission, data, proof.text, proof.targets, facts)

    write_bytes(OUT / "submission.pyz", submission)
    write_bytes(OUT / "coded.fwt", proof.trip.compress.output or b"")
    write_bytes(OUT / "val.txt", data.text)
    write_json(OUT / "certificate.json", content)
    write_bytes(OUT / "certificate.md", certificate.page(content, times).encode())
    write_json(REPORT / "metrics.json", describe(proof.coded, content, data.rows["eval_ngram"]["nats"][: proof.targets]))
    timing = {"seconds": round(time.monotonic() - start, 2)} | coding_seconds(proof.trip) | proof.seconds
    write_json(REPORT / "timing.json", timing)
    say(claimed, content, proof)


def read_data(opened: artifact.Artifact | str) -> tuple[Data, data_checks.Corpus]:
    """The validation set, and all splits with the params that they come from. Raises InputError for a file that is damaged."""
    tokenizer = None if isinstance(opened, str) else opened.tokenizer
    vocabulary_size = tokenizer.vocabulary_size if tokenizer else 1 << 16
    splits = {name: read_split(ARTIFACTS / "tokenize" / name, vocabulary_size) for name in SPLITS}
    documents, witness = (read_stored(ARTIFACTS / f"tokenize/{name}_documents.jsonl.zst") for name in ("val", "witness"))
    sources = load(PARAMS, "data", text_config.Data), load(PARAMS, "tokenize", text_config.Tokenize)
    rows = {name: files.read(ARTIFACTS / name / "scores.npy") for name in EVALS}
    return Data(tokenizer, splits["val"][:], documents, rows), data_checks.Corpus(splits, witness, *sources)


def prove(
    submission: bytes, opened: artifact.Artifact, settings: Settings, data: Data, corpus: data_checks.Corpus, config: Certify
) -> Proof:
    """Code and decode; beside it, the real scorer on the beginning; after it, where not all is coded, on the whole text."""
    prefix, text = cut(data.stream, data.tokenizer, config.wanted(len(data.stream) - 1))
    targets, whole = len(prefix) - 1, len(prefix) == len(data.stream)
    with ThreadPoolExecutor(1) as pool, one_thread() as usual:
        limits = fence.LIMITS._replace(seconds=config.coding_seconds)
        pending = pool.submit(round_trip.run, submission, text, limits)
        start = time.monotonic()
        checked = checks.scoring_claims(opened.model, settings, data, config)
        seconds = {"causality_seconds": round(time.monotonic() - start, 2)}
        checked += checks.file_claims(data, config.val_documents)
        start, tokenizer = time.monotonic(), artifact.members(submission, packing.TOKENIZER)
        checked += data_checks.claims(corpus, data.documents, tokenizer, config.near_duplicates)
        seconds["data_seconds"] = round(time.monotonic() - start, 2)
        start, texts = time.monotonic(), (data.documents, corpus.witness)
        compared = witness.compare(opened.model, submission, settings.eval, data.tokenizer, texts, corpus.splits["train"])
        checked.append(witness.not_too_easy(compared))
        seconds["witness_seconds"] = round(time.monotonic() - start, 2)
        trip = pending.result()
        coded = checks.measure_coded(trip, submission, prefix[1:])
        if not whole:
            start = time.monotonic()
            torch.set_num_threads(usual)
            model = opened.model.to("cuda" if torch.cuda.is_available() else "cpu")
            checked[1] = checks.rescored(model, settings, data)
            seconds["rescore_seconds"] = round(time.monotonic() - start, 2)
    made = checks.coding_claims(trip, coded, text, targets, data)
    return Proof(trip, text, targets, coded, made + checked, learned_chunks(prefix, settings.ttt, data.tokenizer.bos), seconds)


def unread(problem: str) -> Proof:
    """Of an artifact that cannot be read nothing is proved."""
    return Proof(round_trip.never(problem), b"", 0, problem, [], 0, {})


@contextmanager
def one_thread():
    """One thread for torch: the codec has the other core, and arithmetic is compared. Yields how many there were."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield usual
    finally:
        torch.set_num_threads(1)


def beginning(path: Path) -> bytes:
    """At most LONGEST bytes of a file; none where there is no file."""
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(LONGEST)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def origin() -> dict:
    """Where the run comes from, the same each time that it is repeated.

    `commit`: the last one that changed the code, data or params that the stages up to this one read; `dirty`: whether they
    differ from it now; `dvc_lock_sha256`: see lock.digest. None where there is no repository, or no dvc.lock of all stages.
    """
    try:
        pipeline = read_yaml("dvc.yaml")["stages"]
        locked = lock.digest(pipeline, read_yaml("dvc.lock")["stages"], "certify")
    except (InputError, KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {"commit": None, "dirty": None, "dvc_lock_sha256": None}
    paths = [*lock.sources(pipeline, "certify"), PARAMS]
    shallow = git("rev-parse", "--is-shallow-repository") != "false"  # what came before is unknown there
    commit = "" if shallow else git("log", "-1", "--format=%H", "--", *paths)
    changed = git("status", "--porcelain", "--", *paths)
    return {"commit": commit or None, "dirty": bool(changed) if commit else None, "dvc_lock_sha256": locked}


def git(*words: str | Path) -> str:
    """What git prints; nothing where it fails."""
    try:
        return subprocess.run(["git", *words], capture_output=True, check=True, text=True).stdout.strip()
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ""


def describe(coded: Coded | str, content: dict, nats: np.ndarray) -> dict:
    """The metrics; null if nothing was coded. `nats`: the reported scores of the coded tokens."""
    scored_bits = float(nats.sum(dtype=np.float64)) / math.log(2)
    known = isinstance(coded, Coded) and math.isfinite(scored_bits) and scored_bits > 0
    return {
        "legal": content["legal"],
        "certified_tokens": content["certified_tokens"],
        "certified_bpb": content["bpb"],
        "coded_minus_scored_percent": round(100 * (8 * coded.payload_bytes / scored_bits - 1), 4) if known else None,
    }


def coding_seconds(trip: RoundTrip) -> dict:
    """Seconds of both directions, and of the decoder after its start-up; null if a process failed before it reported them."""
    tokens, seconds, begin = (trip.decompress.number(name) for name in ("tokens", "seconds", "start_seconds"))
    measured = tokens > 0 and seconds >= 0.001
    return {
        "encode_seconds": round(trip.compress.seconds, 2),
        "decode_seconds": round(trip.decompress.seconds, 2),
        "decode_tokens_per_second": round(tokens / seconds) if measured else None,
        "start_seconds": None if math.isnan(begin) else round(begin, 2),
    }


def say(claimed: list[Claim], content: dict, proof: Proof) -> None:
    for claim in claimed:
        print(one_line(f"{'holds' if claim.passed else 'FAILS'}: {claim.claim}: {claim.result}"), flush=True)
    spent = {"encoding": proof.trip.compress.seconds, "decoding": proof.trip.decompress.seconds}
    spent |= {SHOWN.get(name, name): seconds for name, seconds in proof.seconds.items()}
    print(f"certify: {', '.join(f'{seconds:,.0f} s of {name}' for name, seconds in spent.items())}")
    size = "" if content["bpb"] is None else f", {content['bpb']:.4f} bpb in {content['coded_bytes']:,} bytes"
    unchecked = f"; not checked: {'; '.join(content['waived'])}" if content["waived"] else ""
    print(f"certify: {content['verdict']}{size}, {proof.updates} updates of test-time training in the coded text{unchecked}")


if __name__ == "__main__":
    run(main)
