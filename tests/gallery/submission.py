"""The code of a submission that cheats: packed beside the honest code, it runs first, changes that, and hands over to it.

Which cheats it is to use, with their arguments, stands in the member CHEATS of submission.pyz. What the scorer in the
repository does too is called by tests/gallery/cheats_score.py, with a function that can take it back.
"""

import contextlib
import importlib
import json
import socket
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

from fairway.codec.network import model_from
from fairway.mixture import weights
from fairway.mixture.hashed_counts import HashedCounts
from fairway.score import predictor
from fairway.submission import command_line, text

CHEATS = "cheats"


def main(arguments: list[str]) -> str | int:
    with zipfile.ZipFile(sys.argv[0]) as archive:
        cheats = json.loads(archive.read(CHEATS))
    for name, given in cheats.items():
        globals()[name](*given)
    return command_line.main(arguments)


def few_buckets(change=setattr) -> None:
    """The text is short: 64 buckets are about as full as #885's 4 million are after 62 million tokens."""
    change(HashedCounts.__init__, "__defaults__", (1 << 6,))


def praised_sums() -> None:
    text.further = lambda *sums: 1.0


def tilt_without_norm() -> None:
    def mix_all_tokens(self, neural, entropy, estimates, order):
        return neural * np.where((estimates[:, 1] > 0) & (order > 0), np.exp(self.betas[order]), 1.0)

    weights.Tilt.mix_all_tokens = mix_all_tokens


def weights_from(place: str) -> None:
    command_line.Submission.model = property(lambda submission: model_from(Path(place).read_bytes()))


def noise() -> None:
    softmax = predictor.softmax
    predictor.softmax = lambda logits: softmax(logits + np.random.default_rng().normal(0, 0.01, len(logits)))


def call_home() -> None:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 9))


def import_from(root: str) -> None:
    sys.path.insert(0, root)
    importlib.import_module("stages.certify")


def leave_text(place: str) -> None:
    compress = command_line.compress

    def leaving(submission, progress, name, out):
        Path(place).write_bytes(Path(name).read_bytes())
        compress(submission, progress, name, out)

    command_line.compress = leaving


def text_in_header() -> None:
    compress = command_line.compress

    def hiding(submission, progress, name, out):
        hidden = Path(name).read_bytes()[:8]
        text.arithmetic_digest = lambda: hidden
        compress(submission, progress, name, out)

    command_line.compress = hiding
    text.check_maker = lambda *found: None


def reverse_the_rest(first: str) -> None:
    decode = text.decode_stream

    def reversing(predictor, file, header, name, advance):
        for tokens in decode(predictor, file, header, name, advance):
            yield np.concatenate((tokens[: int(first)], tokens[int(first) :][::-1]))

    text.decode_stream = reversing


def text_at_the_end() -> None:
    encode = text.encode_stream

    class Tail(text.Block):
        def __bytes__(self) -> bytes:
            return super().__bytes__() + b"the people of our country"

    text.encode_stream = lambda *given: ((Tail(*block), worst) for block, worst in encode(*given))


def clock() -> None:
    softmax = predictor.softmax
    predictor.softmax = lambda logits: softmax(logits * (1 + time.time() % 7 / 1000))
