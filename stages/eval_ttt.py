"""eval_ttt: streaming scores of the decoded artifact, which learns from each chunk once the chunk has been scored.

What the mixture of `ngram.mixture` reads of each token is written down on the way, so that eval_ngram needs no network. Several
ranks share the gradients.
"""

import time

import numpy as np

from fairway.mixture.config import Cache, Ngram
from fairway.mixture.features import Features
from fairway.mixture.tree import path_nats
from fairway.params import load
from fairway.score.config import Eval, Ttt
from fairway.score.features import record_stream, tree_of
from fairway.score.streaming import learned_chunks
from stages.common import ARTIFACTS, PARAMS, REPORTS, Progress, run, write_array, write_json
from stages.launch import shared
from stages.validation import Validation, decoded_model, read_validation, write_scores

OUT = ARTIFACTS / "eval_ttt"


def main() -> None:
    scoring, training, cache = load(PARAMS, "eval", Eval), load(PARAMS, "ttt", Ttt), load(PARAMS, "cache", Cache)
    mixture = load(PARAMS, "ngram", Ngram).mixture
    with shared("eval_ttt") as ranks:
        model = decoded_model().to(ranks.device)
        scoring.check(model.architecture.sequence_length)
        validation = read_validation(scoring.context)
        tree = tree_of(model)
        progress = Progress(len(validation.tokens) - 1, "tokens", "eval_ttt")
        start = time.monotonic()
        settings = scoring, training, cache, mixture
        features = record_stream(model, validation.tokens, *settings, advance=progress.advance, ranks=ranks)
        seconds = time.monotonic() - start
        progress.close(f"{validation.bpb(features['nats']):.4f} bpb")
        if ranks.rank == 0:
            write(validation, features, tree)
            write_json(REPORTS / "eval_ttt/metrics.json", describe(validation, features, tree, training, cache))
            rate = round(len(features) / seconds)
            timing = {"seconds": round(seconds, 2), "tokens_per_second": rate, "world_size": ranks.size}
            write_json(REPORTS / "eval_ttt/timing.json", timing)


def write(validation: Validation, features: Features, tree: np.ndarray) -> None:
    write_scores(OUT / "scores.npy", validation, features["nats"], features["entropy"])
    write_array(OUT / "features.npy", features)
    write_array(OUT / "tree.npy", tree)


def describe(validation: Validation, features: Features, tree: np.ndarray, training: Ttt, cache: Cache) -> dict:
    """The metrics; those of the cache, which only the tree mixture reads, at `cache.weight`."""
    metrics = {"val_bpb_ttt": round(validation.bpb(features["nats"]), 6)}
    if cache.tokens and "paths" in features.dtype.names:
        cached = path_nats(features["paths"][:, :, 1], tree[features["token"]], len(tree))
        metrics["val_bpb_cache"] = round(validation.bpb(cached), 6)
    return metrics | {"ttt_updates": learned_chunks(validation.tokens, training, validation.bos)}


if __name__ == "__main__":
    run(main)
