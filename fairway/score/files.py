"""Per-token scores on disk: .npy arrays of little-endian rows without padding, one row per target of the validation stream.

scores.npy, 16 bytes per row: token u2; bytes u1, of UTF-8 that it spells (BOS 0); order u1, of the longest n-gram whose
context was seen before (0 where no n-gram model looked); neural f4, −ln of the network's probability of the token; nats
f4, −ln of the probability that the stage scores it with; entropy f4, of the network's distribution, in nats.
Beside the scores of eval_ttt lie features.npy, what the mixture of `ngram.mixture` reads of each target (rows of
mixture/features.py), and tree.npy: u2, the place of each token of the vocabulary among the leaves of the mixture's tree.
"""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from fairway.errors import RERUN, InputError, reading
from fairway.mixture.features import Features, feature_type

SCORE = np.dtype(
    [("token", "<u2"), ("bytes", "u1"), ("order", "u1"), ("neural", "<f4"), ("nats", "<f4"), ("entropy", "<f4")],
)
RANK = np.dtype("<u2")


def table(tokens: np.ndarray, token_bytes: np.ndarray, nats: np.ndarray, entropy: np.ndarray) -> np.ndarray:
    """Rows of SCORE for tokens[1:], scored by the network alone; `token_bytes` (V,) are the bytes each token spells."""
    rows = np.zeros(len(tokens) - 1, SCORE)
    rows["token"] = tokens[1:]
    rows["bytes"] = token_bytes[rows["token"]]
    rows["neural"], rows["nats"], rows["entropy"] = nats, nats, entropy
    return rows


def read(path: Path) -> np.ndarray:
    """The rows of a score file, mapped (see `mapped`). Raises InputError."""
    return mapped(path, SCORE)


def read_features(folder: Path, mixture: str, vocabulary_size: int) -> Features:
    """features.npy of a folder, mapped. Raises InputError, also when its fields are not those that the mixture reads."""
    scores, path = read(folder / "scores.npy"), folder / "features.npy"
    features = mapped(path, feature_type(mixture, vocabulary_size))
    if len(features) != len(scores):
        raise InputError(f"{path}: {len(features):,} rows, expected {len(scores):,} as in scores.npy; {RERUN}")
    return features


def read_tree(path: Path, vocabulary_size: int) -> np.ndarray:
    """The ranks of the vocabulary's tokens among the leaves of its tree, uint16 (V,). Raises InputError."""
    ranks = mapped(path, RANK)
    if not np.array_equal(np.sort(ranks), np.arange(vocabulary_size)):
        raise InputError(f"{path}: its {len(ranks):,} ranks are not each of 0 to {vocabulary_size - 1} once; {RERUN}")
    return ranks


def mapped(path: Path, row: np.dtype) -> np.ndarray:
    """A .npy file as a read-only array, of which the system loads what is looked at: it may be larger than the memory.

    Raises InputError when the file is missing, damaged or of another layout.
    """
    with reading(path, "a score file", ValueError, SyntaxError, TokenError):  # a header is parsed as Python
        array = np.lib.format.open_memmap(path, mode="r")
        if path.stat().st_size != array.offset + array.nbytes:
            raise ValueError("its header does not tell its length")
    if array.dtype != row or array.ndim != 1:
        found = f"rows of type {array.dtype} in {array.ndim} dimensions"
        raise InputError(f"{path}: {found}, expected {row} in 1; {RERUN}")
    return np.asarray(array)
