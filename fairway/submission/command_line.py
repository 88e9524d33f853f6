"""`submission.pyz` on the command line: info, score, compress, decompress. Everything it needs is in the file itself.

Everything runs on the CPU in float32, on one thread, so that encoder and decoder do the same arithmetic in the same order.
Files are streamed: memory holds the tokens of one block and the predictor's state.
"""

import contextlib
import copy
import functools
import hashlib
import io
import json
import os
import sys
import time
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from fairway.codec.archive import member
from fairway.codec.network import model_from
from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.mixture.tree_mixture import word_starts
from fairway.score.config import Settings
from fairway.score.predictor import Predictor
from fairway.submission import text
from fairway.submission.streams import chunks, created, is_output, opened, say
from fairway.text.tokenizer import Tokenizer

USAGE = """usage: python submission.pyz info
       python submission.pyz score FILE
       python submission.pyz compress FILE OUT
       python submission.pyz decompress [--anyway] FILE OUT
"-" is standard input or output; --anyway decodes a file made with other arithmetic, and checks every block"""
REFRESH = 0.2, 5  # seconds between lines of progress, on a terminal and elsewhere
MOST_CACHE = 1 << 30  # bytes of keys and values in float32
CLEAR = "\r\x1b[K"  # clears the current line of a terminal


class Submission:
    """The members of a submission. Decoding the weights takes seconds, so it happens at the first access."""

    def __init__(self, path: Path):
        self.content = path.read_bytes()
        self.digest = hashlib.sha256(self.content).digest()
        self.tokenizer = Tokenizer.from_bytes(self._member("tokenizer.model"))

    def _member(self, name: str) -> bytes:
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            if name not in archive.namelist():
                raise InputError(f"the submission has no {name}; fetch the file again")
            return member(archive, name)

    @functools.cached_property
    def model(self) -> GPT:
        return model_from(self._member("model.fwy"))

    @functools.cached_property
    def settings(self) -> Settings:
        """The sealed settings; before anything is sealed, the network alone, streaming with its training length."""
        a = self.model.architecture
        default = {"eval": {"context": a.sequence_length, "block": a.sequence_length}}
        try:
            sealed = json.loads(self._member("settings.json"))
            settings = Settings.from_json(default if sealed == {} else sealed)
        except (InputError, ValueError, RecursionError) as error:
            raise InputError(f"settings.json: not the settings of a predictor ({error})") from None
        unet, again = a.schedule(recurrent=True)
        if (size := 8 * len(unet + again) * a.kv_width * settings.eval.context) > MOST_CACHE:
            raise InputError(
                f"settings.json: eval.context takes {size:,} bytes of keys and values, at most {MOST_CACHE:,} may be"
            )
        return settings

    def predictor(self, targets: int) -> Predictor:
        return Predictor(self.model, self.settings, word_starts(self.tokenizer.pieces), targets)

    def compile(self) -> None:
        """Compile what decoding needs, by decoding two tokens of nothing with a copy of the network."""
        copied = Predictor(copy.deepcopy(self.model), self.settings, word_starts(self.tokenizer.pieces), 2)
        text.decode(copied, bytes(16), 2)

    def tokens(self, file: BinaryIO) -> Iterator[np.ndarray]:
        """The tokens of a file from its start, in pieces; the first BOS is implied."""
        return self.tokenizer.encode_bytes(chunks(file))


class Progress:
    """Tokens done of `total`, on standard error: one line that is rewritten on a terminal, elsewhere a line every five seconds.

    It also times the command: what happens before the first token (decoding weights, compiling code) is the start-up.
    """

    def __init__(self):
        self.total = self.done = 0
        self.begin = self.shown = time.monotonic()
        self.first: float | None = None  # when the first token was done
        self.terminal = sys.stderr.isatty()
        self._rewrite("decoding the weights, compiling")

    def __call__(self, count: int) -> None:
        now = time.monotonic()
        self.done += count
        if self.first is None:
            self.first = self.shown = now
        elif now - self.shown >= REFRESH[not self.terminal]:
            self.shown, speed = now, (self.done - 1) / (now - self.first)
            left = timedelta(seconds=round((self.total - self.done) / speed))
            line = f"{self.done / self.total:.1%} of {self.total:,} tokens, {speed:,.0f} a second, {left} left"
            self._rewrite(line)
            if not self.terminal:
                say(line, error=True)

    def close(self) -> None:
        self._rewrite("")

    def _rewrite(self, line: str) -> None:
        if self.terminal:
            say(CLEAR + line, error=True, end="")

    def seconds(self) -> dict[str, float]:
        now = time.monotonic()
        first = self.first or now
        return {"start_seconds": round(first - self.begin, 3), "seconds": round(now - first, 3)}


def info(submission: Submission, progress: Progress) -> None:
    a, settings = submission.model.architecture, submission.settings
    parameters = sum(parameter.numel() for parameter in submission.model.parameters())
    progress.close()
    lines = [
        f"submission {submission.digest.hex()}, {len(submission.content):,} bytes",
        f"network: {a.layers} layers of width {a.width}, {parameters:,} parameters, vocabulary {a.vocabulary_size:,}",
        *(f"{name}: {', '.join(f'{key} {value}' for key, value in vars(of).items())}" for name, of in vars(settings).items()),
        f"compressed files: format version {text.VERSION}, coded and decoded on the CPU",
        f"arithmetic {text.arithmetic_digest().hex()}: {text.arithmetic()}",
    ]
    say("\n".join(lines))


def score(submission: Submission, progress: Progress, name: str) -> None:
    with opened(name, twice=True) as file:
        count, size = measured(submission, file)
        progress.total = count
        bits = text.bits(submission.predictor(count), submission.tokens(file), progress)
    bpb = bits / size if size else None
    _report({"bytes": size, "tokens": count, "bits": bits, "bpb": bpb}, progress)


def compress(submission: Submission, progress: Progress, name: str, out: str) -> None:
    """Tokenizes twice, because the header and test-time training need the number of tokens first."""
    with opened(name, twice=True) as file, created(out, name, sys.argv[0]) as target:
        count, size = measured(submission, file)
        if count > text.MOST_TOKENS:
            raise InputError(f"{name}: has {count:,} tokens, a compressed file at most {text.MOST_TOKENS:,}; cut it in parts")
        progress.total = count
        header = bytes(text.Header(submission.digest[:8], count, text.arithmetic_digest()))
        written, blocks, payload_bytes, worst_sum = target.write(header), 0, 0, 1.0
        target.flush()  # a decoder at the other end of a pipe starts up meanwhile
        stream = text.encode_stream(submission.predictor(count), submission.tokens(file), progress)
        for block, block_sum in stream:
            blocks += 1
            written += target.write(bytes(block))
            target.flush()
            payload_bytes += len(block.payload)
            worst_sum = text.further(worst_sum, block_sum)
        if progress.done != count:
            raise InputError(f"{name}: changed while it was read, from {count:,} to {progress.done:,} tokens; try again")
    report = {
        "bytes": size,
        "tokens": count,
        "blocks": blocks,
        "file_bytes": written,
        "payload_bytes": payload_bytes,
        "worst_sum": worst_sum,
        "normalised_positions": -(-count // text.SAMPLED),
    }
    _report(report, progress, out)


def decompress(submission: Submission, progress: Progress, name: str, out: str, anyway: bool = False) -> None:
    with opened(name) as file, created(out, name, sys.argv[0]) as target:
        if name == "-":
            submission.compile()  # while the file is still on its way
        header = text.read_header(file, name)
        text.check_maker(header, submission.digest, name, anyway)
        progress.total, size, blocks = header.tokens, 0, 0
        stream = text.decode_stream(submission.predictor(header.tokens), file, header, name, progress)
        for tokens in stream:
            blocks += 1
            start = [submission.tokenizer.bos]  # implied; decodes to nothing
            size += target.write(submission.tokenizer.decode(np.concatenate((start, tokens))))
            target.flush()
    _report({"bytes": size, "tokens": header.tokens, "blocks": blocks}, progress, out)


def measured(submission: Submission, file: BinaryIO) -> tuple[int, int]:
    """Tokens and bytes of a file."""
    return sum(map(len, submission.tokens(file))), file.tell()


def _report(content: dict, progress: Progress, out: str = "") -> None:
    """Print one line of JSON, on standard error if standard output carries the file."""
    content |= progress.seconds()
    progress.close()
    say(json.dumps(content), error=is_output(out))


def main(arguments: list[str]) -> str | int:
    """Run one command. Returns the exit status, or an error message."""
    commands = {"info": (info, 0), "score": (score, 1), "compress": (compress, 2), "decompress": (decompress, 2)}
    command, names = commands.get(arguments[0] if arguments else "", (None, 0))
    files = arguments[1:]
    if command is decompress and "--anyway" in files:
        files.remove("--anyway")
        command = functools.partial(decompress, anyway=True)
    torch.set_num_threads(1)
    try:
        for standard in ("stderr", "stdout"):
            if getattr(sys, standard) is None:
                raise InputError(f"{standard} is closed; open it, if only on {os.devnull}")
        if command is None or len(files) != names:
            say(USAGE, error=True)
            return 2
        with contextlib.closing(Progress()) as progress:
            command(Submission(Path(sys.argv[0])), progress, *files)
    except InputError as error:
        if sys.stderr is None and sys.stdout:
            print(f"error: {error}")
        return f"error: {error}"
    except KeyboardInterrupt:
        say("interrupted", error=True)
        return 130
    return 0
