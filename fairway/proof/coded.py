"""Measure the compressed text from its own bytes, without trusting the submission's report of its size.

Reads the format of fairway/submission/text.py without using its code. Everything but the payload (artifact, arithmetic,
counts, checksums) is known in advance and must match byte for byte, so no text can be hidden there for the decoder.
"""

import hashlib
import struct
from binascii import crc32, crc_hqx
from typing import NamedTuple

import numpy as np

from fairway.errors import InputError

HEADER, CHECKSUM, BLOCK, CHECK = (struct.Struct(form) for form in ("<4sB8sI8s", "<I", "<HBI", "<H"))
MAGIC, VERSION = b"FWYT", 4
BLOCK_TOKENS = 16_384


class Coded(NamedTuple):
    tokens: int
    payloads: tuple[int, ...]  # bytes of each block's code words

    @property
    def payload_bytes(self) -> int:
        return sum(self.payloads)


def measure(content: bytes, submission: bytes, tokens: np.ndarray, arithmetic: str) -> Coded:
    """The sizes of the payloads in a compressed file of these tokens, made by this submission.

    Raises InputError if any byte outside the payload differs from the expected one.
    """
    artifact, coder = (hashlib.sha256(named).digest()[:8] for named in (submission, arithmetic.encode()))
    header = HEADER.pack(MAGIC, VERSION, artifact, len(tokens), coder)
    offset = _after(content, 0, header + CHECKSUM.pack(crc32(header)), "header")
    starts, payloads = range(0, len(tokens), BLOCK_TOKENS), []
    for number, start in enumerate(starts, 1):
        part = tokens[start : start + BLOCK_TOKENS].astype("<u2").tobytes()
        first = offset + BLOCK.size + CHECK.size
        words = int.from_bytes(content[offset : offset + 3], "little")
        payload = content[first : first + 4 * words]
        expected = BLOCK.pack(len(payload) // 4 % 65_536, len(payload) // 4 >> 16, crc32(part))
        expected += CHECK.pack(crc_hqx(expected + payload, 0xFFFF))
        offset = _after(content, offset, expected, f"header of block {number}") + len(payload)
        payloads.append(len(payload))
    if offset != len(content):
        raise InputError(f"the compressed text has {len(content):,} bytes, its blocks end at {offset:,}")
    return Coded(len(tokens), tuple(payloads))


def _after(content: bytes, offset: int, expected: bytes, what: str) -> int:
    """The offset after the expected bytes, which must begin at `offset`."""
    found = content[offset : offset + len(expected)]
    if found != expected:
        differing = (index for index, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b)
        raise InputError(
            f"the {what} of the compressed text is not what it must be, from byte {offset + next(differing, len(found)):,} on"
        )
    return offset + len(expected)
