"""eval_ngram: the scores of eval_ttt mixed with an n-gram cache of the text so far. No network is run: seconds.

Needs no torch: of the network it takes each target's probability and the entropy it was drawn from.
"""

import time

import numpy as np

from fairway.params import load
from fairway.score.bits import bits_per_byte
from fairway.score.config import Ngram
from fairway.score.files import read
from fairway.score.mixture import NgramMixture
from fairway.text.tokenizer import Tokenizer
from stages.shell import ARTIFACTS, PARAMS, REPORTS, replacing, run, write_json


def main() -> None:
    config = load(PARAMS, "ngram", Ngram)
    rows = read(ARTIFACTS / "eval_ttt/scores.npy")
    vocabulary_size = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes()).vocabulary_size
    start = time.monotonic()
    if config.mixture != "none":
        mixture = NgramMixture(config, vocabulary_size)
        rows["nats"], rows["order"] = mixture.score(rows["token"], rows["nats"], rows["entropy"])
    seconds = time.monotonic() - start

    with replacing(ARTIFACTS / "eval_ngram/scores.npy") as temporary, temporary.open("wb") as file:
        np.save(file, rows)
    bpb = bits_per_byte(rows["nats"], int(rows["bytes"].sum(dtype=np.int64)))
    metrics = {"val_bpb_ngram": round(bpb, 6), "mean_order": round(float(rows["order"].mean()), 3)}
    write_json(REPORTS / "eval_ngram/metrics.json", metrics)
    rate = len(rows) / seconds
    write_json(REPORTS / "eval_ngram/timing.json", {"seconds": round(seconds, 2), "tokens_per_second": round(rate)})
    print(f"eval_ngram: {len(rows):,} tokens, {bpb:.4f} bpb", flush=True)


if __name__ == "__main__":
    run(main)
