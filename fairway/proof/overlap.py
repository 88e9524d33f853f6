"""Documents that are in more than one split, or twice in one, found by digests of their tokens in the shards.

Memory is eight bytes per document. The manifest of `tokenize` is not trusted: ready-made shards of the challenge shared
40,000 of 50,000 documents although their manifest did not say so (#2127).
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from fairway.text.shards import Shards, documents


def digests(tokens: np.ndarray | Shards, bos: int) -> np.ndarray:
    """uint64 (documents,): one digest per document of a stream; an empty document has none."""
    return np.fromiter(_digests(documents(tokens, bos), bos), np.uint64)


def _digests(parts: Iterable[np.ndarray], bos: int) -> Iterator[int]:
    for part in parts:
        text = part[part != bos]  # at most one BOS, at the start
        if len(text):
            yield int.from_bytes(hashlib.blake2b(text.tobytes(), digest_size=8).digest(), "little")


def repeats(splits: dict[str, np.ndarray]) -> dict[str, int]:
    """The number of repeated documents, by place: "val and train" for two splits, "val twice" within the last split.

    `splits`: the digests of each split, the validation split last.
    """
    names = list(splits)
    found = {}
    for index, name in enumerate(names):
        for earlier in names[:index]:
            found[f"{name} and {earlier}"] = int(np.isin(splits[name], splits[earlier]).sum())
    last = names[-1]
    return found | {f"{last} twice": len(splits[last]) - len(np.unique(splits[last]))}
