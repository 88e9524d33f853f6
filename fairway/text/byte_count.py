"""How many bytes of text a token stands for: the challenge's table count, and the count of the bytes themselves.

The challenge counts a leading space only if the previous token is not a control token, so a space at the start of a document
(after BOS) is missing from its denominator; the lossless count includes it. If the tokenizer is lossless, the lossless
count is the UTF-8 length of the documents, and the challenge's is one byte less per document that starts with a space.
A NUL inside a document is a BOS and counts 0 bytes in both.
"""

from typing import NamedTuple

import numpy as np

from fairway.text.tokenizer import Tokenizer

CHUNK = 2**20  # tokens per pass of the loop


class TokenBytes(NamedTuple):
    """Arrays over the vocabulary; the first three are the challenge's (reference/frontier-and-rules.md §5, "bpb")."""

    base_bytes: np.ndarray  # int64: UTF-8 bytes without the leading space, 1 for a byte piece, 0 for a control piece
    leading_space: np.ndarray  # bool
    boundary: np.ndarray  # bool: control, unknown and unused pieces
    lossless_bytes: np.ndarray  # int64: length of the piece as decoded; 0 for BOS


def table_bytes(tokenizer: Tokenizer) -> TokenBytes:
    """The byte counts of every token of a vocabulary."""
    lengths = np.array([len(piece) for piece in tokenizer.pieces], dtype=np.int64)
    lengths[tokenizer.is_control] = 0
    leading_space = np.array([piece.startswith(b" ") for piece in tokenizer.pieces]) & ~tokenizer.is_byte
    return TokenBytes(lengths - leading_space, leading_space, tokenizer.is_control.copy(), lengths)


def count_bytes(tokens: np.ndarray, table: TokenBytes) -> tuple[int, int]:
    """(challenge, lossless) bytes of a stream [n], an array or Shards. The first token, BOS, is context and is not counted."""
    challenge = lossless = 0
    for start in range(0, len(tokens) - 1, CHUNK):
        part = tokens[start : start + CHUNK + 1]  # one token more at the front, the predecessor of the first target
        before, targets = part[:-1], part[1:]
        challenge += int(table.base_bytes[targets].sum() + (table.leading_space[targets] & ~table.boundary[before]).sum())
        lossless += int(table.lossless_bytes[targets].sum())
    return challenge, lossless
