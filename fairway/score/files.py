"""Per-token scores on disk: one row a target of the validation stream, as a NumPy structured array in a .npy file.

12 bytes a row, little-endian: token, UTF-8 bytes it spells (BOS 0), nats and entropy in nats, longest n-gram order that
matched (0 where no n-gram model looked). `numpy.load(path, mmap_mode="r")` reads it anywhere.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairway.errors import InputError

SCORE = np.dtype([("token", "<u2"), ("bytes", "u1"), ("nats", "<f4"), ("entropy", "<f4"), ("order", "u1")])


@dataclass(frozen=True)
class Scores:
    """For each target: −ln of its probability, and the entropy of the distribution it was drawn from, both in nats."""

    nats: np.ndarray  # float32 (targets,)
    entropy: np.ndarray  # float32 (targets,)


def table(tokens: np.ndarray, token_bytes: np.ndarray, scores: Scores) -> np.ndarray:
    """Rows for tokens[1:]; `token_bytes` (V,) are the bytes each token spells."""
    rows = np.zeros(len(tokens) - 1, SCORE)
    rows["token"] = tokens[1:]
    rows["bytes"] = token_bytes[rows["token"]]
    rows["nats"], rows["entropy"] = scores.nats, scores.entropy
    return rows


def read(path: Path) -> np.ndarray:
    """The rows of a score file. Raises InputError when it is damaged or of another layout."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path}: not a score file ({error}); run `dvc repro` to write it again") from None
    if rows.dtype != SCORE:
        raise InputError(f"{path}: rows of type {rows.dtype}, expected {SCORE}; run `dvc repro` to write it again")
    return rows
