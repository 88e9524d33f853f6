"""The compressed text, measured by its own bytes: a submission may say what it likes of its size.

Reads the format of fairway/codec/text.py without using its code. All that a file may hold beside payload is counted or
bounded, so that text cannot hide in headers, in checksums of tiny blocks, or behind the end.
"""

import struct
from typing import NamedTuple

from fairway.errors import InputError

HEADER, BLOCK = struct.Struct("<4sI8sQH"), struct.Struct("<IIII")
MAGIC, VERSION, CHECKSUM_BYTES = b"FWYT", 3, 4
BLOCK_TOKENS = 65_536
LONGEST_ARITHMETIC = 256  # bytes


class Coded(NamedTuple):
    tokens: int
    blocks: int
    payload_bytes: int
    arithmetic: str  # that made it, in its own words


def measure(content: bytes) -> Coded:
    """What a compressed file holds. Raises InputError, one sentence, where it is none or holds more than it may."""
    if len(content) < HEADER.size + CHECKSUM_BYTES:
        raise InputError(f"the compressed text has {len(content)} bytes, less than a header")
    magic, version, _, tokens, length = HEADER.unpack_from(content)
    if (magic, version) != (MAGIC, VERSION):
        raise InputError(f"the compressed text begins with {magic!r} {version}, expected {MAGIC!r} {VERSION}")
    if length > LONGEST_ARITHMETIC:
        raise InputError(f"the compressed text spends {length:,} bytes on its arithmetic, {LONGEST_ARITHMETIC} are enough")
    place, found, blocks, payload = HEADER.size + length + CHECKSUM_BYTES, 0, 0, 0
    while place + BLOCK.size <= len(content):
        count, size, *_ = BLOCK.unpack_from(content, place)
        found, blocks, payload, place = found + count, blocks + 1, payload + size, place + BLOCK.size + size
    if place != len(content):
        raise InputError(f"the compressed text has {len(content):,} bytes, its blocks end at {place:,}")
    fewest = -(-tokens // BLOCK_TOKENS)
    if found != tokens or blocks != fewest:
        expected = f"expected {tokens:,} in {fewest:,}"
        raise InputError(f"the compressed text holds {found:,} tokens in {blocks:,} blocks, {expected}")
    arithmetic = content[HEADER.size : HEADER.size + length].decode("utf-8", "replace")
    return Coded(tokens, blocks, payload, arithmetic)
