"""Assign a document to a split by a hash of its text alone.

So the split does not depend on the order or the names of files, a document stays in its split when others are added,
and equal documents are always in the same split. The tokenizer's sample is drawn by the same hash.
"""

import hashlib
import heapq
from typing import Literal

Split = Literal["train", "holdout", "val", "witness"]


def digest(text: bytes) -> int:
    """The first 8 bytes of sha256, big-endian: a document's identity, in 0..2**64 - 1."""
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def split_of(identity: int, holdout_fraction: float, val_fraction: float, witness_fraction: float = 0.0) -> Split:
    """The split of a document with this digest.

    Val has the smallest digests, so holdout_fraction does not change it; the witness has the largest, so that it takes
    documents from train alone.
    """
    place = identity / 2**64
    if place < val_fraction:
        return "val"
    if place < val_fraction + holdout_fraction:
        return "holdout"
    return "witness" if place > 1 - witness_fraction else "train"


class SmallestSample:
    """The texts with the smallest digests, just enough for `limit` bytes: a uniform sample in one pass.

    It depends on the set of texts, not on their order. Memory: `limit` bytes and the longest text.
    """

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0
        self._heap: list[tuple[int, str, int]] = []  # (-digest, text, bytes): the largest digest is on top

    def add(self, identity: int, text: str, size: int) -> None:
        """Offer a text of `size` UTF-8 bytes; each digest must be offered only once."""
        if self.size >= self.limit and -identity <= self._heap[0][0]:
            return
        heapq.heappush(self._heap, (-identity, text, size))
        self.size += size
        while self.size - self._heap[0][2] >= self.limit:
            self.size -= heapq.heappop(self._heap)[2]

    def texts(self) -> list[str]:
        """The texts in ascending order of digest."""
        return [text for _, text, _ in sorted(self._heap, reverse=True)]
