"""Documents that stand in more than one split, or twice in one: by digests of their tokens, straight from the shards.

Eight bytes a document in memory, whatever the corpus weighs. The manifest of `tokenize` is not asked: shards that were
made elsewhere overlapped by 40,000 of 50,000 documents, and their own papers did not say so (the challenge's #2127).
"""

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from fairway.text.shards import Shards, documents


def digests(tokens: np.ndarray | Shards, bos: int) -> np.ndarray:
    """uint64 (documents,) of a stream; a document without tokens has none."""
    return np.fromiter(_digests(documents(tokens, bos), bos), np.uint64)


def _digests(parts: Iterable[np.ndarray], bos: int) -> Iterator[int]:
    for part in parts:
        text = part[part != bos]  # one BOS at most, in front
        if len(text):
            yield int.from_bytes(hashlib.blake2b(text.tobytes(), digest_size=8).digest(), "little")


def repeats(splits: dict[str, np.ndarray]) -> dict[str, int]:
    """Documents found twice, by a name for where: those of a later split that an earlier one has too, those of the last twice.

    `splits`: digests of each, the validation split last.
    """
    names = list(splits)
    found = {}
    for index, name in enumerate(names):
        for earlier in names[:index]:
            found[f"{name} and {earlier}"] = int(np.isin(splits[name], splits[earlier]).sum())
    last = names[-1]
    return found | {f"{last} twice": len(splits[last]) - len(np.unique(splits[last]))}
