"""The text codec: tokens through a range coder, each a walk down the vocabulary tree, driven by the scored predictor.

Encoder and decoder share its code path, and ask it only for the nodes on the way.

A compressed file: magic, the first 8 bytes of the SHA-256 of the artifact that made it, the number of tokens (uint32),
CRC-32 of what follows, then the range coder's 32-bit words; all little-endian. A file is one stream of documents, in
which BOS stands for NUL and the first BOS is implied (fairway.text.tokenizer).
"""

import struct
import zlib
from collections.abc import Callable

import constriction
import numpy as np

from fairway.errors import InputError
from fairway.score.predictor import Predictor
from fairway.score.tree import middle

MAGIC = b"FWYT"
VERSION = 2
SAMPLED = 16  # tokens from one look at the whole distribution to the next
HEADER = struct.Struct("<4sI8sII")  # magic, version, artifact, tokens, CRC-32 of the payload

Advance = Callable[[int], None]
Bernoulli = constriction.stream.model.Bernoulli


def walk(predictor: Predictor, decide: Callable[[Bernoulli, int], int]) -> int:
    """Down the tree to the next token: at each node `decide` is told how likely right is, and the first leaf there.

    A decision's frequencies have 24 bits, of which either side gets one at least.
    """
    lo, hi, level = 0, len(predictor.leaves), 0
    while hi - lo > 1:
        half = middle(lo, hi)
        right = decide(Bernoulli(predictor.right(lo, hi, level), perfect=False), half)
        lo, hi, level = (half, hi, level + 1) if right else (lo, half, level + 1)
    return int(predictor.leaves[lo])


def encode(predictor: Predictor, tokens: np.ndarray, advance: Advance = lambda count: None) -> tuple[bytes, float]:
    """The payload for the tokens after the first BOS, and of the sums of all probabilities before every SAMPLED-th token that
    which is furthest from 1."""
    encoder = constriction.stream.queue.RangeEncoder()
    worst_sum = 1.0

    def decide(model: Bernoulli, half: int) -> int:
        encoder.encode(int(rank >= half), model)
        return int(rank >= half)

    for index, token in enumerate(tokens.tolist()):
        if index % SAMPLED == 0:
            worst_sum = max(worst_sum, float(predictor.distribution().sum()), key=lambda total: abs(total - 1))
        rank = predictor.ranks[token]
        walk(predictor, decide)
        predictor.observe(token)
        advance(1)
    return encoder.get_compressed().astype("<u4").tobytes(), worst_sum


def decode(predictor: Predictor, payload: bytes, count: int, advance: Advance = lambda count: None) -> np.ndarray:
    """The `count` tokens that a payload codes."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, dtype="<u4").astype(np.uint32))
    tokens = np.empty(count, np.uint16)
    for index in range(count):
        tokens[index] = walk(predictor, lambda model, half: decoder.decode(model))
        predictor.observe(int(tokens[index]))
        advance(1)
    return tokens


def pack(payload: bytes, artifact: bytes, count: int) -> bytes:
    """A compressed file; `artifact` is the SHA-256 of the submission."""
    return HEADER.pack(MAGIC, VERSION, artifact[:8], count, zlib.crc32(payload)) + payload


def unpack(content: bytes, artifact: bytes, source: str) -> tuple[bytes, int]:
    """Payload and number of tokens of a compressed file. Raises InputError when it is damaged or another artifact's."""
    if len(content) < HEADER.size or content[:4] != MAGIC:
        raise InputError(f"{source}: not a file compressed by a fairway submission; expected it to begin with {MAGIC!r}")
    _, version, made_by, count, checksum = HEADER.unpack_from(content)
    if version != VERSION:
        raise InputError(f"{source}: format version {version}, this submission reads version {VERSION}")
    if made_by != artifact[:8]:
        raise InputError(
            f"{source}: compressed by submission {made_by.hex()}, this one is {artifact[:8].hex()}; "
            "only the same file can decode it"
        )
    payload = content[HEADER.size :]
    if zlib.crc32(payload) != checksum:
        raise InputError(f"{source}: damaged, its checksum does not match; {len(payload):,} bytes follow the header")
    return payload, count
