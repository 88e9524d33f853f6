"""The compressed text, measured by its own bytes: a submission may say what it likes of its size.

Reads the format of fairway/submission/text.py without using its code. Everything in the file but the payload (artifact,
arithmetic, numbers, checksums) is known beforehand and must match to the byte: no text can hide where a decoder reads it.
"""

import hashlib
import struct
import zlib
from typing import NamedTuple

import numpy as np

from fairway.errors import InputError

HEADER, CHECKSUM, BLOCK = struct.Struct("<4sI8sQH"), struct.Struct("<I"), struct.Struct("<IIII")
MAGIC, VERSION = b"FWYT", 3
BLOCK_TOKENS = 65_536


class Coded(NamedTuple):
    tokens: int
    blocks: int
    payload_bytes: int


def measure(content: bytes, submission: bytes, tokens: np.ndarray, arithmetic: str) -> Coded:
    """What a compressed file of these tokens, made by this submission, holds.

    Raises InputError, one sentence, where any byte but those of payload is another than it must be.
    """
    name = arithmetic.encode()
    header = HEADER.pack(MAGIC, VERSION, hashlib.sha256(submission).digest()[:8], len(tokens), len(name)) + name
    place = _past(content, 0, header + CHECKSUM.pack(zlib.crc32(header)), "header")
    starts, payload_bytes = range(0, len(tokens), BLOCK_TOKENS), 0
    for number, start in enumerate(starts, 1):
        part = tokens[start : start + BLOCK_TOKENS].astype("<u2").tobytes()
        first = place + BLOCK.size
        payload = content[first : first + int.from_bytes(content[place + 4 : place + 8], "little")]
        known = BLOCK.pack(len(part) // 2, len(payload), zlib.crc32(payload), zlib.crc32(part))
        place = _past(content, place, known, f"header of block {number}") + len(payload)
        payload_bytes += len(payload)
    if place != len(content):
        raise InputError(f"the compressed text has {len(content):,} bytes, its blocks end at {place:,}")
    return Coded(len(tokens), len(starts), payload_bytes)


def _past(content: bytes, place: int, known: bytes, what: str) -> int:
    """Where the known bytes end that must begin at `place`."""
    found = content[place : place + len(known)]
    if found != known:
        differing = (index for index, (a, b) in enumerate(zip(found, known, strict=False)) if a != b)
        raise InputError(
            f"the {what} of the compressed text is not what it must be, from byte {place + next(differing, len(found)):,} on"
        )
    return place + len(known)
