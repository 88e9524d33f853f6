"""The compressed file: its bytes, written out here again; what is damaged or made elsewhere is refused in a sentence; and
memory, which does not grow with it."""

import io
import itertools
import re
import struct
import tracemalloc
from binascii import crc32, crc_hqx
from hashlib import sha256
from importlib.metadata import version

import constriction
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.submission import text
from tests.submission.simple_predictors import Counting, Uniform

ARTIFACT = bytes(range(32))
HERE, ELSEWHERE = "pdp11, 1 thread", "a Cray-1, 1 thread"
TEXT = b"seven"  # in blocks of two tokens


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 2)
    monkeypatch.setattr(text, "arithmetic", lambda: HERE)


def digest(name: str) -> bytes:
    return sha256(name.encode()).digest()[:8]


def compressed(content: bytes = TEXT, predictor=Counting, made_with: str = HERE) -> bytes:
    tokens = np.frombuffer(content, np.uint8).astype(np.uint16)
    blocks = text.encode_stream(predictor(), iter([tokens]), lambda count: None)
    return bytes(text.Header(ARTIFACT[:8], len(tokens), digest(made_with))) + b"".join(bytes(block) for block, _ in blocks)


def decompressed(content: bytes, predictor=Counting, anyway: bool = False) -> bytes:
    file = io.BytesIO(content)
    header = text.read_header(file, "old.fwt")
    text.check_maker(header, ARTIFACT, "old.fwt", anyway)
    blocks = text.decode_stream(predictor(), file, header, "old.fwt", lambda count: None)
    return b"".join(tokens.astype(np.uint8).tobytes() for tokens in blocks)


def refusal(content: bytes, **options) -> str:
    with pytest.raises(InputError) as error:
        decompressed(content, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_bytes_of_a_file():
    """Against the description alone: struct, CRC-32, and the range coder on the eight bits of each token."""
    expected = struct.pack("<4sB8sI8s", b"FWYT", 4, bytes(range(8)), 5, sha256(b"pdp11, 1 thread").digest()[:8])
    expected += struct.pack("<I", crc32(expected))
    for part in (b"se", b"ve", b"n"):
        encoder = constriction.stream.queue.RangeEncoder()
        for bit in "".join(f"{value:08b}" for value in part):
            encoder.encode(int(bit), constriction.stream.model.Bernoulli(0.5, perfect=False))
        payload = struct.pack(f"<{len(encoder.get_compressed())}I", *encoder.get_compressed())
        tokens = struct.pack(f"<{len(part)}H", *part)
        head = struct.pack("<HBI", len(payload) // 4, 0, crc32(tokens))
        expected += head + struct.pack("<H", crc_hqx(head + payload, 0xFFFF)) + payload
    assert compressed(TEXT, Uniform) == expected
    assert decompressed(expected, Uniform) == TEXT


def test_an_empty_text_is_a_header_alone():
    assert compressed(b"") == bytes(text.Header(ARTIFACT[:8], 0, digest(HERE))) and decompressed(compressed(b"")) == b""


@given(st.lists(st.binary(max_size=5)))
def test_the_predictor_goes_on_from_block_to_block(parts):
    """And the pieces in which the tokens come do not matter."""
    whole = np.frombuffer(b"".join(parts), np.uint8).astype(np.uint16)
    pieces = (np.frombuffer(part, np.uint8).astype(np.uint16) for part in parts)
    blocks = [block for block, _ in text.encode_stream(Counting(), pieces, lambda count: None)]
    assert blocks == [block for block, _ in text.encode_stream(Counting(), iter([whole]), lambda count: None)]
    assert [block.tokens for block in blocks] == [2] * (len(whole) // 2) + [1] * (len(whole) % 2)
    assert decompressed(compressed(b"".join(parts))) == b"".join(parts)


def test_every_bit_flipped_is_refused():
    content = compressed()
    for place, bit in itertools.product(range(len(content)), range(8)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        refusal(bytes(damaged))
        refusal(bytes(damaged), anyway=True)


def test_every_truncation_is_refused():
    content = compressed()
    for size in range(len(content)):
        refusal(content[:size])


FIRST = 29  # where the first block begins: 9 bytes of header, 4 of payload
HEADER_DAMAGE = "old.fwt: the header is damaged, its checksum does not match; fetch the file again"
BLOCK_DAMAGE = "old.fwt: block 1 is damaged, its checksum does not match; fetch the file again"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "old.fwt: not a file compressed by a fairway submission; expected it to begin with b'FWYT'"),
        (lambda whole: b"PK" + whole, "old.fwt: not a file compressed by a fairway submission"),
        (
            lambda whole: whole[:4] + b"\2" + whole[5:],
            "old.fwt: format version 2, this submission reads version 4; use the one that made it",
        ),
        (lambda whole: whole[:25], HEADER_DAMAGE),
        (lambda whole: whole[: FIRST - 1], HEADER_DAMAGE),
        (lambda whole: whole[:8] + b"\xff" + whole[9:], HEADER_DAMAGE),
        (lambda whole: whole[:FIRST], "old.fwt: block 1 is cut off in its header; expected 9 bytes, found 0"),
        (lambda whole: whole[: FIRST + 11], "old.fwt: block 1 is cut off; expected 4 bytes, found 2"),
        (lambda whole: whole[:FIRST] + b"\0" + whole[FIRST + 1 :], BLOCK_DAMAGE),
        (lambda whole: whole[: FIRST + 2] + b"\xff" + whole[FIRST + 3 :], BLOCK_DAMAGE),
        (lambda whole: whole[: FIRST + 4] + b"!" + whole[FIRST + 5 :], BLOCK_DAMAGE),
        (lambda whole: whole[: FIRST + 9] + b"seen" + whole[FIRST + 13 :], BLOCK_DAMAGE),
        (lambda whole: whole + b"!", "old.fwt: damaged; expected its end after 3 blocks, found more bytes"),
    ],
)
def test_damage_is_named(damage, message):
    assert refusal(damage(compressed())).startswith(message)


def test_a_block_that_claims_more_than_its_tokens_can_take_is_not_read():
    """With a right checksum; the header of 2^32 − 1 tokens promises nothing either: a block of two is all that is read."""
    head = struct.pack("<HBI", 0xFFFF, 0xFF, 0)
    block = head + struct.pack("<H", crc_hqx(head + bytes(1 << 26), 0xFFFF))
    file = io.BytesIO(bytes(text.Header(ARTIFACT[:8], 2**32 - 1, digest(HERE))) + block + bytes(1 << 26))
    with pytest.raises(InputError, match="block 1 is damaged"):
        list(text.read_blocks(file, text.read_header(file, "old.fwt").tokens, "old.fwt"))
    assert file.tell() == FIRST + 9


def test_another_artifact_is_named():
    content = bytes(text.Header(b"\xff" * 8, 0, digest(HERE)))
    message = "compressed by submission ffffffffffffffff, this one is 0001020304050607; only the same file can decode it"
    assert refusal(content) == refusal(content, anyway=True) == f"old.fwt: {message}"


MAKERS = f"made with arithmetic {digest(ELSEWHERE).hex()}, this is {digest(HERE).hex()}, {HERE}"


def test_another_arithmetic_is_refused_and_tried_when_asked():
    content = compressed(made_with=ELSEWHERE)
    assert refusal(content) == (
        f"old.fwt: {MAKERS}, where the same file may decode to another text; decompress --anyway tries, and checks every block"
    )
    assert decompressed(content, anyway=True) == TEXT


def test_an_arithmetic_that_decodes_otherwise_is_caught_in_its_block():
    """The predictor rounds otherwise, as it were; no token of the block is given away."""
    file = io.BytesIO(compressed(b"\x80" * 2 + TEXT, made_with=ELSEWHERE))
    header, given_away = text.read_header(file, "old.fwt"), []

    class Otherwise(Counting):
        def observe(self, token):
            self.counts[token] += 10 if token == 0x80 else 10_000

    blocks = text.decode_stream(Otherwise(), file, header, "old.fwt", lambda count: None)
    with pytest.raises(InputError) as error:
        given_away.extend(blocks)
    message = f"old.fwt: block N decodes to other tokens than were coded; {MAKERS}"
    assert re.sub("block [2-4] ", "block N ", str(error.value)) == message
    assert given_away and np.concatenate(given_away)[:2].tolist() == [0x80] * 2 and len(given_away) < 4


@given(st.binary(min_size=8, max_size=40).filter(lambda payload: len(payload) % 4 == 0))
def test_any_payload_at_all_is_decoded_or_refused(payload):
    """With checksums of its own: what a decoder of another arithmetic may meet in the middle of a file."""
    content = bytes(text.Header(ARTIFACT[:8], 2, digest(HERE))) + bytes(text.Block(2, payload, 0))
    assert "block 1 decodes to other tokens" in refusal(content)


def test_the_worst_sum_is_of_every_sixteenth_token_of_the_whole_text(monkeypatch):
    monkeypatch.setattr(text, "BLOCK", 32)

    class Drifting(Counting):
        looked = 0

        def distribution(self):
            self.looked += 1
            return np.full(256, (1 + self.looked) / 256)

    blocks = text.encode_stream(Drifting(), iter([np.zeros(100, np.uint16)]), lambda count: None)
    assert [worst_sum for _, worst_sum in blocks] == [3, 5, 7, 8]
    assert text.further(1.1, 0.8) == 0.8 and text.further(1.0, 1.0) == 1.0


def test_the_arithmetic_of_this_process(monkeypatch):
    monkeypatch.undo()
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "constriction"))
    pattern = rf"\S+ \S+, torch {re.escape(version('torch').split('+')[0])}\S*, {re.escape(libraries)}, 1 thread"
    assert re.fullmatch(pattern, text.arithmetic())


def test_memory_does_not_grow_with_the_text(monkeypatch, tmp_path):
    """Neither of the encoder nor of the decoder: 200 blocks take what 20 take."""
    monkeypatch.setattr(text, "BLOCK", 256)

    def peaks(blocks: int) -> list[int]:
        found, pieces = [], (np.arange(256, dtype=np.uint16) for _ in range(blocks))
        tracemalloc.start()
        with (tmp_path / "coded").open("wb") as file:
            file.write(bytes(text.Header(ARTIFACT[:8], 256 * blocks, digest(HERE))))
            file.writelines(bytes(block) for block, _ in text.encode_stream(Uniform(), pieces, lambda count: None))
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
        with (tmp_path / "coded").open("rb") as file:
            header = text.read_header(file, "coded")
            for tokens in text.decode_stream(Uniform(), file, header, "coded", lambda count: None):
                assert len(tokens) == 256
        found.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        return found

    few, many = peaks(20), peaks(200)
    assert all(after < 1.2 * before for before, after in zip(few, many, strict=True))
