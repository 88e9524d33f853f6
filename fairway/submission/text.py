"""The text codec: the scored predictor drives a range coder, which codes each token as a path down the vocabulary tree.

Encoder and decoder share one code path, which computes only the tree nodes on the token's path. A compressed file is a header
and blocks of BLOCK tokens, the last one shorter. Each block has its own range coder and checksums of its payload and its
tokens; the predictor's state continues across blocks. So the decoder holds one block in memory and verifies it before emitting
it. The header identifies the artifact and the arithmetic that made the file, because a decoder that rounds one probability
differently decodes another text. A file is one stream of documents: BOS stands for NUL, and the first BOS is implied
(fairway.text.tokenizer). The score of record is the size of the file: 29 bytes of header and 9 per block are all but payload.
"""

import math
import platform
import struct
from array import array
from binascii import crc32, crc_hqx
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from importlib.metadata import version
from typing import BinaryIO, NamedTuple

import constriction
import numba
import numpy as np
import torch
from llvmlite.binding import get_host_cpu_name

from fairway.errors import InputError
from fairway.mixture.tree import middle
from fairway.score.predictor import Predictor

MAGIC = b"FWYT"
VERSION = 4
BLOCK = 1 << 14  # tokens, a multiple of SAMPLED; a block costs 11 bytes, and a decoder beside the encoder is one block behind
SAMPLED = 16  # the whole distribution is summed before every 16th token
RAREST = 2.0**-24  # least probability of a decision: frequencies have 24 bits, and each side gets at least one
PAYLOAD_LIMIT = 64  # bytes per token: 16 decisions of 24 bits take 48, the coder's last words 8
# Little-endian: magic, version, first bytes of the artifact's SHA-256, number of tokens, first bytes of the SHA-256 of the
# arithmetic's name; the CRC-32 of these follows.
HEADER = struct.Struct("<4sB8sI8s")
CHECKSUM = struct.Struct("<I")
MOST_TOKENS = 2**32 - 1
# Words of payload in three bytes, low 16 bits first; CRC-32 of the tokens as uint16. The CRC-16 (CCITT, from 0xFFFF) of these
# seven bytes and of the payload follows, then the payload.
LENGTH_BYTES, BLOCK_HEADER_BYTES = 3, 9

Advance = Callable[[int], None]
Bernoulli = constriction.stream.model.Bernoulli


class Header(NamedTuple):
    """The header of a compressed file."""

    artifact: bytes  # the first 8 bytes of its SHA-256
    tokens: int  # of the whole text, after the first BOS; at most MOST_TOKENS
    arithmetic: bytes  # its `arithmetic_digest`

    def __bytes__(self) -> bytes:
        content = HEADER.pack(MAGIC, VERSION, *self)
        return content + CHECKSUM.pack(crc32(content))


class Block(NamedTuple):
    """The code words of some tokens, from a range coder of their own."""

    tokens: int  # 1 … BLOCK; not in the file
    payload: bytes
    checksum: int  # of the tokens

    def __bytes__(self) -> bytes:
        content = (len(self.payload) // 4).to_bytes(LENGTH_BYTES, "little") + CHECKSUM.pack(self.checksum)
        return content + _block_check(content, self.payload) + self.payload


def arithmetic() -> str:
    """Everything that the last bit of a probability depends on in this process: processor, libraries, threads."""
    threads = torch.get_num_threads()
    return (
        f"{platform.machine()} {get_host_cpu_name()}, torch {torch.__version__}, numpy {np.__version__}, "
        f"numba {numba.__version__}, constriction {version('constriction')}, {threads} thread{'s' * (threads != 1)}"
    )


def arithmetic_digest() -> bytes:
    """The first 8 bytes of the SHA-256 of this process's `arithmetic`."""
    return sha256(arithmetic().encode()).digest()[:8]


def walk(predictor: Predictor, decide: Callable[[float, int], int]) -> int:
    """Walk down the tree to the next token. `decide` gets P(right) and the first leaf on the right, and returns 1 for right."""
    lo, hi, level = 0, len(predictor.leaves), 0
    while hi - lo > 1:
        half = middle(lo, hi)
        right = decide(predictor.right(lo, hi, level), half)
        lo, hi, level = (half, hi, level + 1) if right else (lo, half, level + 1)
    return int(predictor.leaves[lo])


def follow(predictor: Predictor, token: int, take: Callable[[float, int], object]) -> None:
    """Walk down to a known token and observe it; at each node `take` gets P(right), and 1 if the path goes right, else 0."""
    rank = predictor.ranks[token]

    def decide(right: float, half: int) -> int:
        goes_right = int(rank >= half)
        take(right, goes_right)
        return goes_right

    walk(predictor, decide)
    predictor.observe(token)


def encode(predictor: Predictor, tokens: np.ndarray, advance: Advance = lambda count: None) -> tuple[bytes, float]:
    """The payload of a block's tokens, and its worst sum: of the probabilities' sums, taken before every SAMPLED-th token, the
    one furthest from 1."""
    encoder, ways, chances, worst_sum = constriction.stream.queue.RangeEncoder(), array("i"), array("d"), 1.0

    def take(right: float, goes_right: int) -> None:
        chances.append(right)
        ways.append(goes_right)

    for index, token in enumerate(tokens.tolist()):
        if index % SAMPLED == 0:
            worst_sum = further(worst_sum, float(predictor.distribution().sum()))
        follow(predictor, token, take)
        advance(1)
    encoder.encode(np.array(ways), Bernoulli(perfect=False), np.array(chances))
    return encoder.get_compressed().astype("<u4").tobytes(), worst_sum


def decode(predictor: Predictor, payload: bytes, count: int, advance: Advance = lambda count: None) -> np.ndarray:
    """The `count` tokens that a payload codes; fewer if this predictor cannot have made the payload."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, dtype="<u4").astype(np.uint32))
    tokens = np.empty(count, np.uint16)
    for index in range(count):
        try:
            tokens[index] = walk(predictor, lambda right, half: decoder.decode(Bernoulli(right, perfect=False)))
        except AssertionError:  # what constriction raises for a payload that its frequencies exclude
            return tokens[:index]
        predictor.observe(int(tokens[index]))
        advance(1)
    return tokens


def bits(predictor: Predictor, stream: Iterable[np.ndarray], advance: Advance = lambda count: None) -> float:
    """−log2 of the probability of a stream of tokens, summed over decisions; each is at most what it costs the coder."""
    total = 0.0

    def take(right: float, goes_right: int) -> None:
        nonlocal total
        total -= math.log2(max(right if goes_right else 1 - right, RAREST))

    for tokens in stream:
        for token in tokens.tolist():
            follow(predictor, token, take)
            advance(1)
    return total


def encode_stream(predictor: Predictor, stream: Iterable[np.ndarray], advance: Advance) -> Iterator[tuple[Block, float]]:
    """The blocks of a stream of tokens that comes in pieces of any length, each with its worst sum (see `encode`)."""
    for tokens in _gathered(stream):
        payload, worst_sum = encode(predictor, tokens, advance)
        yield Block(len(tokens), payload, _checksum(tokens)), worst_sum


def decode_stream(predictor: Predictor, file: BinaryIO, header: Header, name: str, advance: Advance) -> Iterator[np.ndarray]:
    """The tokens of each block after the header. Verifies each block before emitting it; raises InputError if one differs."""
    for number, block in enumerate(read_blocks(file, header.tokens, name), 1):
        tokens = decode(predictor, block.payload, block.tokens, advance)
        if _checksum(tokens) != block.checksum:
            raise InputError(f"{name}: block {number} decodes to other tokens than were coded; {_makers(header)}")
        yield tokens


def further(worst: float, total: float) -> float:
    """The one of two sums that is further from 1."""
    return max(worst, total, key=lambda value: abs(value - 1))


def read_header(file: BinaryIO, name: str) -> Header:
    """Read the header. Raises InputError if the file is of another format or version, or damaged."""
    content = file.read(HEADER.size)
    if content[:4] != MAGIC:
        raise InputError(f"{name}: not a file compressed by a fairway submission; expected it to begin with {MAGIC!r}")
    if len(content) > 4 and content[4] != VERSION:
        raise InputError(
            f"{name}: format version {content[4]}, this submission reads version {VERSION}; use the one that made it"
        )
    if len(content) < HEADER.size or file.read(CHECKSUM.size) != CHECKSUM.pack(crc32(content)):
        raise InputError(f"{name}: the header is damaged, its checksum does not match; fetch the file again")
    return Header(*HEADER.unpack(content)[2:])


def check_maker(header: Header, artifact: bytes, name: str, anyway: bool) -> None:
    """Raise InputError if another artifact made the file, or, unless `anyway`, another arithmetic."""
    if header.artifact != artifact[:8]:
        raise InputError(
            f"{name}: compressed by submission {header.artifact.hex()}, this one is {artifact[:8].hex()}; "
            "only the same file can decode it"
        )
    if header.arithmetic != arithmetic_digest() and not anyway:
        raise InputError(
            f"{name}: {_makers(header)}, where the same file may decode to another text; "
            "decompress --anyway tries, and checks every block"
        )


def _makers(header: Header) -> str:
    return f"made with arithmetic {header.arithmetic.hex()}, this is {arithmetic_digest().hex()}, {arithmetic()}"


def read_blocks(file: BinaryIO, tokens: int, name: str) -> Iterator[Block]:
    """The blocks up to the end of the file, `tokens` tokens in all, one in memory at a time. InputError if one is damaged."""
    number = 0
    while tokens:
        number += 1
        header = _read(file, BLOCK_HEADER_BYTES, f"{name}: block {number} is cut off in its header")
        content, check, count = header[:-2], header[-2:], min(BLOCK, tokens)
        size = 4 * int.from_bytes(content[:LENGTH_BYTES], "little")
        payload = _read(file, size, f"{name}: block {number} is cut off") if size <= PAYLOAD_LIMIT * count else b""
        if len(payload) < size or check != _block_check(content, payload):
            raise InputError(f"{name}: block {number} is damaged, its checksum does not match; fetch the file again")
        tokens -= count
        yield Block(count, payload, *CHECKSUM.unpack(content[LENGTH_BYTES:]))
    if file.read(1):
        raise InputError(f"{name}: damaged; expected its end after {number} blocks, found more bytes")


def _read(file: BinaryIO, size: int, problem: str) -> bytes:
    content = file.read(size)
    if len(content) < size:
        raise InputError(f"{problem}; expected {size} bytes, found {len(content)}")
    return content


def _checksum(tokens: np.ndarray) -> int:
    return crc32(tokens.astype("<u2").tobytes())


def _block_check(content: bytes, payload: bytes) -> bytes:
    return crc_hqx(content + payload, 0xFFFF).to_bytes(2, "little")


def _gathered(stream: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same tokens, BLOCK at a time; the last piece may be shorter."""
    waiting, room = [], BLOCK
    for tokens in stream:
        while len(tokens):
            waiting.append(tokens[:room])
            tokens = tokens[room:]
            room -= len(waiting[-1])
            if not room:
                yield np.concatenate(waiting)
                waiting, room = [], BLOCK
    if waiting:
        yield np.concatenate(waiting)
