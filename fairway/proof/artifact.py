"""The sealed submission.pyz, opened: its tokenizer and its network, or why they cannot be read.

The file is a stranger's: a member may be missing, damaged or no model at all, and the certificate says so.
"""

import io
import zipfile
from typing import NamedTuple

from fairway.codec.archive import member
from fairway.codec.network import model_from
from fairway.errors import InputError, reading
from fairway.lm.model import GPT
from fairway.submission.packing import TOKENIZER, WEIGHTS
from fairway.text.tokenizer import Tokenizer


class Artifact(NamedTuple):
    tokenizer: Tokenizer
    model: GPT


def opened(submission: bytes) -> Artifact | str:
    """The tokenizer and the network in a submission, or the reason why one cannot be read."""
    try:
        with reading(TOKENIZER, "a tokenizer", Exception):
            tokenizer = Tokenizer.from_bytes(_member(submission, TOKENIZER))
        with reading(WEIGHTS, "a network", Exception):
            model = model_from(_member(submission, WEIGHTS))
    except InputError as error:
        return str(error)
    return Artifact(tokenizer, model)


def members(submission: bytes, *names: str) -> bytes | None:
    """The contents of some members, joined; None if one cannot be read."""
    try:
        return b"".join(_member(submission, name) for name in names)
    except Exception:
        return None


def _member(submission: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(submission)) as archive:
        return member(archive, name)
