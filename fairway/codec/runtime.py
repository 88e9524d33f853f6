"""`submission.pyz` on the command line: info, score, compress, decompress; all it needs is in the file itself.

Everything runs on one CPU thread in float32, so that encoder and decoder do the same arithmetic in the same order.
"""

import hashlib
import json
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

from fairway.codec import text
from fairway.codec.network import model_from
from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.score.config import Cache, Eval, Ngram, Settings, Ttt
from fairway.score.predictor import Predictor
from fairway.score.tree_mixture import word_starts
from fairway.text.tokenizer import Tokenizer

USAGE = """usage: python submission.pyz info
       python submission.pyz score FILE
       python submission.pyz compress FILE OUT
       python submission.pyz decompress FILE OUT"""


class Submission:
    """The members of a submission, read and checked."""

    def __init__(self, path: Path):
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in ("tokenizer.model", "model.fwy", "settings.json")}
        self.digest = hashlib.sha256(path.read_bytes()).digest()
        self.tokenizer = Tokenizer.from_bytes(members["tokenizer.model"])
        self.model = model_from(members["model.fwy"])
        self.settings = settings_from(json.loads(members["settings.json"]), self.model.architecture)

    def predictor(self, targets: int) -> Predictor:
        return Predictor(self.model, self.settings, word_starts(self.tokenizer.pieces), targets)


def settings_from(content: dict, architecture: Architecture) -> Settings:
    """The sealed settings; the network alone, streaming at its training length, where nothing has been sealed yet."""
    if content:
        return Settings.from_json(content)
    length = architecture.sequence_length
    return Settings(
        Eval("streaming", length, length, length, 1, 0, "never", False),
        Ttt("none", "all", 0, 1.0, "never", 2, 1, False, 1, 0.0, "constant", 0.0, 0.0, 0.0, 1, 1.0, []),
        Cache(0, 1.0, 0.5),
        Ngram("none", "interpolated", 1, [0.5] * 3, 1024, 1, 0.0, 1, 0.5, 0.0),
    )


class _Ticker:
    """Progress on standard error, a line every five seconds."""

    def __init__(self, total: int):
        self.total, self.done, self.start = total, 0, time.monotonic()
        self.last = self.start

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.last >= 5:
            self.last = now
            print(f"{self.done:,} of {self.total:,} tokens, {self.done / (now - self.start):,.0f} a second", file=sys.stderr)


def _tokens(submission: Submission, path: Path) -> np.ndarray:
    try:
        return submission.tokenizer.encode(path.read_bytes().decode("utf-8"))[1:]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not valid UTF-8; this submission codes UTF-8 text") from None


def _write(path: Path, content: bytes) -> None:
    """Beside its place first: an interrupted run leaves no half file under the name asked for."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)


def info(submission: Submission) -> None:
    a = submission.model.architecture
    parameters = sum(parameter.numel() for parameter in submission.model.parameters())
    print(f"submission {submission.digest.hex()}")
    print(f"network: {a.layers} layers of width {a.width}, {parameters:,} parameters, vocabulary {a.vocabulary_size:,}")
    for name, section in vars(submission.settings).items():
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in vars(section).items())}")


def score(submission: Submission, path: Path) -> None:
    tokens = _tokens(submission, path)
    predictor = submission.predictor(len(tokens))
    ticker, bits = _Ticker(len(tokens)), 0.0
    for token in tokens:
        bits -= float(np.log2(predictor.distribution()[token]))
        predictor.observe(int(token))
        ticker(1)
    size = path.stat().st_size
    print(json.dumps({"bytes": size, "tokens": len(tokens), "bits": bits, "bpb": bits / size if size else None}))


def compress(submission: Submission, path: Path, out: Path) -> None:
    tokens = _tokens(submission, path)
    payload, worst_sum = text.encode(submission.predictor(len(tokens)), tokens, _Ticker(len(tokens)))
    _write(out, text.pack(payload, submission.digest, len(tokens)))
    report = {"bytes": path.stat().st_size, "tokens": len(tokens), "payload_bytes": len(payload), "worst_sum": worst_sum}
    print(json.dumps(report))


def decompress(submission: Submission, path: Path, out: Path) -> None:
    payload, count = text.unpack(path.read_bytes(), submission.digest, str(path))
    tokens = text.decode(submission.predictor(count), payload, count, _Ticker(count))
    start = [submission.tokenizer.bos]  # implied, and spells nothing
    _write(out, submission.tokenizer.decode(np.concatenate((start, tokens))))


def main(arguments: list[str]) -> str | int:
    """Run one command; the exit status, or the sentence that says what is wrong."""
    commands = {"info": (info, 0), "score": (score, 1), "compress": (compress, 2), "decompress": (decompress, 2)}
    command, files = commands.get(arguments[0] if arguments else "", (None, 0))
    if command is None or len(arguments) != files + 1:
        return USAGE
    torch.set_num_threads(1)
    try:
        command(Submission(Path(sys.argv[0])), *map(Path, arguments[1:]))
    except InputError as error:
        return f"error: {error}"
    except OSError as error:
        return f"error: {error.filename}: {error.strerror}"
    return 0
