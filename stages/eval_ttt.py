"""eval_ttt: streaming scores of the decoded artifact, which learns from each chunk once the chunk has been scored.

What a mixture wants to know of each token is written down on the way, so that eval_ngram needs no network. Several ranks
share the gradients.
"""

import os
import sys
import time

import numpy as np

from fairway.mixture.config import Cache
from fairway.mixture.features import Features
from fairway.mixture.tree import path_nats
from fairway.params import load
from fairway.score.config import Eval, Ttt
from fairway.score.features import record_stream, tree_of
from fairway.score.files import hint_table
from fairway.score.streaming import learned_chunks
from fairway.train.ranks import Ranks
from stages.common import ARTIFACTS, PARAMS, REPORTS, Progress, run, write_array, write_json
from stages.launch import launch, visible_ranks
from stages.validation import Validation, decoded_model, read_validation, write_scores

OUT = ARTIFACTS / "eval_ttt"


def main() -> None:
    scoring, training, cache = load(PARAMS, "eval", Eval), load(PARAMS, "ttt", Ttt), load(PARAMS, "cache", Cache)
    if "WORLD_SIZE" not in os.environ and visible_ranks() > 1:
        sys.exit(launch("stages.eval_ttt", visible_ranks()))
    ranks = Ranks.join()
    try:
        model = decoded_model().to(ranks.device)
        scoring.check(model.architecture.sequence_length)
        validation = read_validation(scoring.context)
        tree = tree_of(model)
        progress = Progress(len(validation.tokens) - 1, "tokens", "eval_ttt")
        start = time.monotonic()
        share = {"rank": ranks.rank, "size": ranks.size, "average_": ranks.average_}
        evidence = record_stream(model, validation.tokens, scoring, training, cache, advance=progress.advance, **share)
        seconds = time.monotonic() - start
        progress.close(f"{validation.bpb(evidence.nats):.4f} bpb")
        if ranks.rank == 0:
            write(validation, evidence, tree)
            write_json(REPORTS / "eval_ttt/metrics.json", describe(validation, evidence, tree, training, cache))
            rate = round(len(evidence.tokens) / seconds)
            timing = {"seconds": round(seconds, 2), "tokens_per_second": rate, "world_size": ranks.size}
            write_json(REPORTS / "eval_ttt/timing.json", timing)
    finally:
        ranks.leave()


def write(validation: Validation, evidence: Features, tree: np.ndarray) -> None:
    write_scores(OUT / "scores.npy", validation, evidence.nats, evidence.entropy)
    write_array(OUT / "hints.npy", hint_table(evidence))
    write_array(OUT / "paths.npy", evidence.paths)
    write_array(OUT / "tree.npy", tree)


def describe(validation: Validation, evidence: Features, tree: np.ndarray, training: Ttt, cache: Cache) -> dict:
    """The metrics; the cache's with the weight that the tree mixture starts from."""
    metrics = {"val_bpb_ttt": round(validation.bpb(evidence.nats), 6)}
    if cache.tokens:
        cached = path_nats(evidence.paths[:, :, 1], tree[evidence.tokens], len(tree))
        metrics["val_bpb_cache"] = round(validation.bpb(cached), 6)
    return metrics | {"ttt_updates": learned_chunks(validation.tokens, training, validation.bos)}


if __name__ == "__main__":
    run(main)
