"""Documents that are in more than one split, or twice in one, found by digests of their text.

Text, not tokens: a text has many spellings in tokens. Memory is eight bytes per document. The manifest of `tokenize` is not
trusted: ready-made shards of the challenge shared 40,000 of 50,000 documents although their manifest did not say so (#2127).
"""

import hashlib
from array import array

import numpy as np


class Digests:
    """One digest for every document that is not empty, whole (`add`) or from a text whose documents follow a NUL (`update`)."""

    def __init__(self):
        self._digests, self._open = array("Q"), []

    def add(self, document: bytes) -> None:
        if document:
            self._digests.append(int.from_bytes(hashlib.blake2b(document, digest_size=8).digest(), "little"))

    def update(self, chunk: bytes) -> None:
        """The next bytes of a text, cut anywhere. A NUL inside a document is taken for the start of another."""
        first, *rest = chunk.split(b"\0")
        self._open.append(first)
        for part in rest:
            self.add(b"".join(self._open))
            self._open = [part]

    def array(self) -> np.ndarray:
        """uint64 (documents,); no more can be given afterwards."""
        self.add(b"".join(self._open))
        return np.array(self._digests, np.uint64)


def repeats(splits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The repeated documents, by place: "val and train" for two splits, "val twice" within the last split.

    `splits`: the digests of each split, the validation split last. The documents are indices into the split named first.
    """
    names = list(splits)
    found = {}
    for index, name in enumerate(names):
        for earlier in names[:index]:
            found[f"{name} and {earlier}"] = np.flatnonzero(np.isin(splits[name], splits[earlier]))
    last = names[-1]
    _, first = np.unique(splits[last], return_index=True)
    return found | {f"{last} twice": np.setdiff1d(np.arange(len(splits[last])), first)}
