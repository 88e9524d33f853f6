"""eval_ngram: the scores of eval_ttt mixed with what the text so far says. No network is run: seconds.

Needs no torch: of the network it takes what eval_ttt has written down.
"""

import time

import numpy as np

from fairway.errors import RERUN, InputError
from fairway.mixture.config import Ngram
from fairway.mixture.features import Features
from fairway.mixture.flat import mixture_of
from fairway.mixture.match import LONGEST
from fairway.mixture.tree import depth
from fairway.mixture.tree_mixture import word_starts
from fairway.params import load
from fairway.score.bits import bits_per_byte
from fairway.score.files import read, read_evidence, read_tree
from fairway.text.tokenizer import read_tokenizer
from stages.common import ARTIFACTS, PARAMS, REPORTS, Progress, run, write_array, write_json

GIVEN = ARTIFACTS / "eval_ttt"
PIECE = 1 << 16  # tokens between two signs of progress


def main() -> None:
    config = load(PARAMS, "ngram", Ngram)
    scores, evidence = read(GIVEN / "scores.npy"), read_evidence(GIVEN)
    tokenizer = read_tokenizer(ARTIFACTS / "tokenize/tokenizer.model")
    tree = read_tree(GIVEN / "tree.npy", tokenizer.vocabulary_size)
    check(evidence, tokenizer.vocabulary_size)
    mixture = mixture_of(config, tree, word_starts(tokenizer.pieces), tokenizer.bos)
    rows = scores.copy()
    progress = Progress(len(rows), "tokens", "eval_ngram")
    start = time.monotonic()
    for first in range(0, len(rows), PIECE):
        piece = slice(first, first + PIECE)
        rows["nats"][piece], rows["order"][piece] = mixture.score(evidence.part(piece))
        progress.advance(len(rows[piece]))
    seconds = time.monotonic() - start
    bpb = bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64)))
    progress.close(f"{bpb:.4f} bpb")

    write_array(ARTIFACTS / "eval_ngram/scores.npy", rows)
    metrics = {"val_bpb_ngram": round(bpb, 6), "mean_order": round(float(rows["order"].mean()), 3)}
    write_json(REPORTS / "eval_ngram/metrics.json", metrics)
    rate = len(rows) / seconds
    write_json(REPORTS / "eval_ngram/timing.json", {"seconds": round(seconds, 2), "tokens_per_second": round(rate)})


def check(evidence: Features, vocabulary_size: int) -> None:
    """Raises InputError for what eval_ttt cannot have written: compiled code trusts its indices."""
    for name, column, values, most in (
        ("scores.npy", "token", evidence.tokens, vocabulary_size - 1),
        ("hints.npy", "hint", evidence.hints, vocabulary_size - 1),
        ("hints.npy", "order", evidence.hint_orders, LONGEST),
    ):
        if (found := int(values.max())) > most:
            raise InputError(f"{GIVEN / name}: column '{column}' goes up to {found:,}, expected {most:,} at most; {RERUN}")
    floats = [("scores.npy", "neural", evidence.nats), ("scores.npy", "entropy", evidence.entropy)]
    floats += [("hints.npy", "nats", evidence.hint_nats), ("hints.npy", "nearest", evidence.nearest)]
    for name, column, values in (*floats, ("paths.npy", "odds", evidence.paths)):
        if not np.isfinite((values.min(), values.max())).all():
            raise InputError(f"{GIVEN / name}: column '{column}' holds what is no finite number; {RERUN}")
    if (found := evidence.paths.shape[1:]) != (expected := (depth(vocabulary_size), 2)):
        raise InputError(f"{GIVEN / 'paths.npy'}: paths of shape {found}, expected {expected}; {RERUN}")


if __name__ == "__main__":
    run(main)
