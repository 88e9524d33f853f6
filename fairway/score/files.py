"""Per-token scores on disk: .npy arrays of little-endian rows without padding, one row a target of the validation stream.

scores.npy, 16 bytes a row: token u2; bytes u1, of UTF-8 that it spells (BOS 0); order u1, of the longest n-gram whose
context was seen before (0 where no n-gram model looked); neural f4, −ln of the network's probability of the token; nats
f4, −ln of the probability that the stage scores it with; entropy f4, of the network's distribution, in nats.
The rest of the evidence lies beside the scores of eval_ttt: hints.npy, 12 bytes a row: hint u2, order u2, nats f4, nearest
f4; paths.npy: f4 (depth, 2) a row. evidence.py has their meaning. `numpy.save` writes them, `numpy.load` reads them.
"""

from pathlib import Path
from tokenize import TokenError

import numpy as np

from fairway.errors import RERUN, InputError, reading
from fairway.mixture.features import Features

SCORE = np.dtype(
    [("token", "<u2"), ("bytes", "u1"), ("order", "u1"), ("neural", "<f4"), ("nats", "<f4"), ("entropy", "<f4")],
)
HINT = np.dtype([("hint", "<u2"), ("order", "<u2"), ("nats", "<f4"), ("nearest", "<f4")])
ODDS = np.dtype("<f4")
RANK = np.dtype("<u2")


def table(
    tokens: np.ndarray,
    token_bytes: np.ndarray,
    nats: np.ndarray,
    entropy: np.ndarray,
    neural: np.ndarray | None = None,
    orders: np.ndarray | None = None,
) -> np.ndarray:
    """Rows of SCORE for tokens[1:]; `token_bytes` (V,) are the bytes each token spells.

    Without `neural` the network's probability is the one scored with, without `orders` no n-gram model has looked.
    """
    rows = np.zeros(len(tokens) - 1, SCORE)
    rows["token"] = tokens[1:]
    rows["bytes"] = token_bytes[rows["token"]]
    rows["nats"], rows["entropy"] = nats, entropy
    rows["neural"] = nats if neural is None else neural
    if orders is not None:
        rows["order"] = orders
    return rows


def hint_table(evidence: Features) -> np.ndarray:
    """Rows of HINT: what the evidence of each target holds beside its scores and its path."""
    rows = np.empty(len(evidence.tokens), HINT)
    rows["hint"], rows["order"] = evidence.hints, evidence.hint_orders
    rows["nats"], rows["nearest"] = evidence.hint_nats, evidence.nearest
    return rows


def read(path: Path) -> np.ndarray:
    """The rows of a score file, mapped (see `mapped`). Raises InputError."""
    return mapped(path, SCORE)


def read_evidence(folder: Path) -> Features:
    """Views of the three files in a folder, mapped. Raises InputError, also when they are not of one length."""
    scores = read(folder / "scores.npy")
    hints, paths = mapped(folder / "hints.npy", HINT), mapped(folder / "paths.npy", ODDS, dimensions=3)
    for name, array in (("hints.npy", hints), ("paths.npy", paths)):
        if len(array) != len(scores):
            raise InputError(f"{folder / name}: {len(array):,} rows, expected {len(scores):,} as in scores.npy; {RERUN}")
    return Features(
        tokens=scores["token"],
        nats=scores["neural"],
        entropy=scores["entropy"],
        hints=hints["hint"],
        hint_nats=hints["nats"],
        hint_orders=hints["order"],
        paths=paths,
        nearest=hints["nearest"],
    )


def read_tree(path: Path, vocabulary_size: int) -> np.ndarray:
    """The ranks of the vocabulary's tokens among the leaves of its tree, uint16 (V,). Raises InputError."""
    ranks = mapped(path, RANK)
    if not np.array_equal(np.sort(ranks), np.arange(vocabulary_size)):
        raise InputError(f"{path}: its {len(ranks):,} ranks are not each of 0 to {vocabulary_size - 1} once; {RERUN}")
    return ranks


def mapped(path: Path, row: np.dtype, dimensions: int = 1) -> np.ndarray:
    """A .npy file as a read-only array, of which the system loads what is looked at: it may be larger than the memory.

    Raises InputError when the file is missing, damaged or of another layout.
    """
    with reading(path, "a score file", ValueError, SyntaxError, TokenError):  # a header is parsed as Python
        array = np.lib.format.open_memmap(path, mode="r")
        if path.stat().st_size != array.offset + array.nbytes:
            raise ValueError("its header does not tell its length")
    if array.dtype != row or array.ndim != dimensions:
        found = f"rows of type {array.dtype} in {array.ndim} dimensions"
        raise InputError(f"{path}: {found}, expected {row} in {dimensions}; {RERUN}")
    return np.asarray(array)
