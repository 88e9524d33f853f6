"""The text codec: tokens through a range coder, driven by the scored predictor. Encoder and decoder share its code path.

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

MAGIC = b"FWYT"
VERSION = 1
HEADER = struct.Struct("<4sI8sII")  # magic, version, artifact, tokens, CRC-32 of the payload

Advance = Callable[[int], None]


def model_of(probabilities: np.ndarray) -> constriction.stream.model.Categorical:
    """Probabilities (V,) float64 as cumulative frequencies of 24 bits; every token gets at least 2⁻²⁴."""
    return constriction.stream.model.Categorical(probabilities, lazy=True)


def encode(predictor: Predictor, tokens: np.ndarray, advance: Advance = lambda count: None) -> tuple[bytes, float]:
    """The payload for the tokens after the first BOS, and the largest |sum of probabilities − 1| on the way."""
    encoder = constriction.stream.queue.RangeEncoder()
    worst_sum_error = 0.0
    for token in tokens:
        probabilities = predictor.distribution()
        worst_sum_error = max(worst_sum_error, abs(float(probabilities.sum()) - 1))
        encoder.encode(int(token), model_of(probabilities))
        predictor.observe(int(token))
        advance(1)
    return encoder.get_compressed().astype("<u4").tobytes(), worst_sum_error


def decode(predictor: Predictor, payload: bytes, count: int, advance: Advance = lambda count: None) -> np.ndarray:
    """The `count` tokens that a payload codes."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, dtype="<u4").astype(np.uint32))
    tokens = np.empty(count, np.uint16)
    for index in range(count):
        tokens[index] = decoder.decode(model_of(predictor.distribution()))
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
