"""eval_ngram: the scores of eval_ttt mixed with what the text so far says. No network is run: seconds.

Needs no torch: of the network it takes what eval_ttt has written down.
"""

import time

import numpy as np

from fairway.errors import RERUN, InputError
from fairway.mixture.config import Ngram
from fairway.mixture.features import Features
from fairway.mixture.protocol import mixture_of
from fairway.mixture.tree_mixture import word_starts
from fairway.params import load
from fairway.score.bits import bits_per_byte
from fairway.score.files import read, read_features, read_tree
from fairway.text.tokenizer import read_tokenizer
from stages.common import ARTIFACTS, PARAMS, REPORTS, Progress, run, write_array, write_json

GIVEN = ARTIFACTS / "eval_ttt"
PIECE = 1 << 16  # tokens between two signs of progress


def main() -> None:
    config = load(PARAMS, "ngram", Ngram)
    tokenizer = read_tokenizer(ARTIFACTS / "tokenize/tokenizer.model")
    tree = read_tree(GIVEN / "tree.npy", tokenizer.vocabulary_size)
    scores, features = read(GIVEN / "scores.npy"), read_features(GIVEN, config.mixture, tokenizer.vocabulary_size)
    check(features, tokenizer.vocabulary_size)
    mixture = mixture_of(config, tree, word_starts(tokenizer.pieces), tokenizer.bos)
    rows = scores.copy()
    progress = Progress(len(rows), "tokens", "eval_ngram")
    start = time.monotonic()
    for first in range(0, len(rows), PIECE):
        piece = slice(first, first + PIECE)
        rows["nats"][piece], rows["order"][piece] = mixture.score(features[piece])
        progress.advance(len(rows[piece]))
    seconds = time.monotonic() - start
    bpb = bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64)))
    progress.close(f"{bpb:.4f} bpb")

    write_array(ARTIFACTS / "eval_ngram/scores.npy", rows)
    metrics = {"val_bpb_ngram": round(bpb, 6), "mean_order": round(float(rows["order"].mean()), 3)}
    write_json(REPORTS / "eval_ngram/metrics.json", metrics)
    rate = len(rows) / seconds
    write_json(REPORTS / "eval_ngram/timing.json", {"seconds": round(seconds, 2), "tokens_per_second": round(rate)})


def check(features: Features, vocabulary_size: int) -> None:
    """Raises InputError for what eval_ttt cannot have written: compiled code trusts its indices."""
    place = GIVEN / "features.npy"
    if (found := int(features["token"].max())) >= vocabulary_size:
        raise InputError(f"{place}: column 'token' goes up to {found:,}, expected {vocabulary_size - 1:,} at most; {RERUN}")
    for name in features.dtype.names:
        if not np.isfinite((features[name].min(), features[name].max())).all():
            raise InputError(f"{place}: column '{name}' holds what is not a finite number; {RERUN}")


if __name__ == "__main__":
    run(main)
