"""eval_ngram: the scores of eval_ttt mixed with what the text so far says. No network is run: seconds.

Needs no torch: of the network it takes what eval_ttt has written down.
"""

import time

import numpy as np

from fairway.params import load
from fairway.score.bits import bits_per_byte
from fairway.score.config import Ngram
from fairway.score.files import read, read_evidence
from fairway.score.flat import mixture_of
from fairway.score.tree_mixture import word_starts
from fairway.text.tokenizer import Tokenizer
from stages.shell import ARTIFACTS, PARAMS, REPORTS, Progress, run, write_array, write_json

PIECE = 1 << 16  # tokens between two signs of progress


def main() -> None:
    config = load(PARAMS, "ngram", Ngram)
    scores, evidence = read(ARTIFACTS / "eval_ttt/scores.npy"), read_evidence(ARTIFACTS / "eval_ttt")
    tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
    tree = np.load(ARTIFACTS / "eval_ttt/tree.npy")
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


if __name__ == "__main__":
    run(main)
