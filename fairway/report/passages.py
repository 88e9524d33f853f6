"""The passages of the validation text that cost least and most, token by token.

The text is cut every 400 bytes, at the next word, and at the ends of documents; where there are no words (no spaces) at
the next character. Tokens that share a character are put together, so what is shown is always whole characters; bytes
that are no UTF-8 are shown as \\x escapes. The BOS that ends a document spells nothing and belongs to no passage.
"""

import codecs
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

LENGTH = 400  # bytes


class Token(NamedTuple):
    """Bits before mixing: those of the network while it learns (TTT); after: mixed with what the text so far predicts."""

    text: str
    before: float
    after: float


@dataclass(frozen=True)
class Passage:
    document: int  # from 1, as in tables.by_document
    start: int  # bytes into the document
    size: int  # bytes
    bits_per_byte: float  # after mixing
    tokens: list[Token]


def extremes(rows: np.ndarray, pieces: list[bytes], count: int = 5) -> tuple[list[Passage], list[Passage]]:
    """The `count` cheapest passages, the cheapest first, and the dearest, the dearest first; none is in both.

    `rows` (N,) are the scores of eval_ngram, `pieces` the bytes of each token of the vocabulary.
    """
    cheap_to_dear = sorted(cuts(rows, pieces), key=lambda cut: cut[-1])
    half = min(count, len(cheap_to_dear) // 2)
    dear = cheap_to_dear[half:][-count:][::-1]
    return tuple([_passage(rows, pieces, *cut) for cut in chosen] for chosen in (cheap_to_dear[:half], dear))


def cuts(rows: np.ndarray, pieces: list[bytes]) -> list[tuple]:
    """(first row, row after the last, document, start, size, bits per byte) of every passage of half to twice LENGTH."""
    counts = rows["bytes"].astype(np.int64)
    opens = np.concatenate(([True], counts[:-1] == 0))  # (N,) the first token of a document
    document = np.cumsum(opens)
    read = np.cumsum(counts) - counts
    offset = read - read[opens][document - 1]
    bits = np.where(counts > 0, rows["nats"].astype(np.float64), 0) / math.log(2)
    found: list[tuple] = []
    for border in (_words(pieces), _characters(pieces)):
        places = np.flatnonzero(border[rows["token"]] | opens)
        part = offset[places] // LENGTH
        keep = np.concatenate(([True], (np.diff(part) != 0) | (np.diff(document[places]) != 0)))
        first = places[keep]
        last = np.append(first[1:], len(rows))
        sizes, costs = np.add.reduceat(counts, first), np.add.reduceat(bits, first)
        usable = (2 * sizes >= LENGTH) & (sizes <= 2 * LENGTH)
        columns = (first, last, document[first], offset[first], sizes, costs / np.maximum(sizes, 1))
        found = list(zip(*(column[usable].tolist() for column in columns), strict=True))
        if found:
            break
    return found


def _words(pieces: list[bytes]) -> np.ndarray:
    """(V,) bool: tokens that begin with a space or end a line."""
    return np.array([piece[:1].isspace() for piece in pieces])


def _characters(pieces: list[bytes]) -> np.ndarray:
    """(V,) bool: tokens that begin with no continuation byte of UTF-8."""
    return np.array([bool(piece) and piece[0] & 0xC0 != 0x80 for piece in pieces])


def _passage(rows: np.ndarray, pieces: list[bytes], first: int, last: int, *where) -> Passage:
    part = rows[first:last]
    return Passage(*where, whole_characters(part[part["bytes"] > 0], pieces))


def whole_characters(rows: np.ndarray, pieces: list[bytes]) -> list[Token]:
    """Tokens in text order; neighbors that share a character as one, with the bits of both."""
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    tokens, text, before, after = [], "", 0.0, 0.0
    for index, row in enumerate(rows, 1):
        text += decoder.decode(pieces[row["token"]], final=index == len(rows))
        before += float(row["neural"]) / math.log(2)
        after += float(row["nats"]) / math.log(2)
        if not decoder.getstate()[0]:
            tokens.append(Token(text, before, after))
            text, before, after = "", 0.0, 0.0
    return tokens
