"""The size of a compressed text is read off its bytes, and no byte of it but payload is free to hold text."""

import hashlib
import struct
from binascii import crc32, crc_hqx

import numpy as np
import pytest

from fairway.errors import InputError
from fairway.proof.coded import Coded, measure

FULL = 16_384
SUBMISSION, NAME = b"a submission", "this one"
TOKENS = np.arange(FULL + 40, dtype=np.uint16)


def coded(*payloads: bytes, tokens: np.ndarray = TOKENS) -> bytes:
    """A compressed file as the format has it."""
    artifact, arithmetic = (hashlib.sha256(named).digest()[:8] for named in (SUBMISSION, NAME.encode()))
    head = struct.pack("<4sB8sI8s", b"FWYT", 4, artifact, len(tokens), arithmetic)
    content = head + struct.pack("<I", crc32(head))
    for start, payload in zip(range(0, len(tokens), FULL), payloads, strict=True):
        part = tokens[start : start + FULL].astype("<u2")
        head = struct.pack("<I", len(payload) // 4)[:3] + struct.pack("<I", crc32(part.tobytes()))
        content += head + struct.pack("<H", crc_hqx(head + payload, 0xFFFF)) + payload
    return content


def measured(content: bytes, tokens: np.ndarray = TOKENS) -> Coded:
    return measure(content, SUBMISSION, tokens, NAME)


def test_blocks_and_payload_are_counted():
    assert measured(coded(b"x" * 300_000, b"y" * 12)) == Coded(FULL + 40, (300_000, 12))
    assert measured(coded(tokens=TOKENS[:0]), TOKENS[:0]) == Coded(0, ())


def test_no_byte_but_payload_may_be_another():
    """Each in turn: sizes, names and checksums are known beforehand, and what is payload changes its checksum."""
    content = coded(b"abcd", tokens=TOKENS[:7])
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        with pytest.raises(InputError):
            measured(bytes(damaged), TOKENS[:7])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the header of the compressed text is not what it must be, from byte 0 on"),
        (b"FWYX" + coded(b"", b"")[4:], "the header of the compressed text is not what it must be, from byte 3 on"),
        (coded(b"abcd", b"") + b"hidden", "the compressed text has 57 bytes, its blocks end at 51"),
        (coded(b"abcd", b"efgh")[:-1], "the header of block 2 of the compressed text is not what it must be, from byte 42 on"),
        (
            coded(b"abcd", b"", tokens=TOKENS[::-1]),
            "the header of block 1 of the compressed text is not what it must be, from byte 32 on",
        ),
    ],
    ids=["nothing", "foreign", "something behind", "cut off", "other tokens"],
)
def test_what_could_hide_text_is_refused(content, sentence):
    with pytest.raises(InputError) as error:
        measured(content)
    assert str(error.value) == sentence


def test_a_name_of_the_coders_own_choice_is_refused():
    content = coded(b"abcd", tokens=TOKENS[:4])
    with pytest.raises(InputError, match="header of the compressed text"):
        measure(content, SUBMISSION, TOKENS[:4], "this text")


def test_another_submissions_file_is_refused():
    with pytest.raises(InputError, match="from byte 5 on"):
        measure(coded(b"abcd", tokens=TOKENS[:4]), b"another", TOKENS[:4], NAME)
