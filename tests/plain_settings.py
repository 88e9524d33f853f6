"""Settings of a predictor with everything on, small enough for a tiny network."""

import dataclasses

from fairway.mixture.config import Cache, Ngram
from fairway.score.config import Eval, Settings, Ttt

EVAL = Eval(context=16, stride=8, block=8)
TTT = Ttt(
    optimizer="sgd",
    chunk_tokens=40,
    epochs=2,
    sequences_per_step=2,
    lr=0.05,
    momentum=0.9,
    gradient_clip=1.0,
    lora_rank=2,
    lora_alpha=8.0,
    lora_targets=["query", "feed_forward", "head"],
)
CACHE = Cache(tokens=30, sharpness=20.0)
NGRAM = Ngram(
    mixture="tree",
    max_order=3,
    discounts=[0.5, 0.9, 1.3],
    table_entries=1 << 20,
    learning_rate=0.02,
    entropy_bins=4,
    neural_weight=0.7,
    tilt=1.0,
)
LINEAR = dataclasses.replace(
    NGRAM, mixture="linear", estimator="interpolated", max_order=5, learning_rate=0.05, entropy_bins=3, neural_weight=0.6
)
SETTINGS = Settings(EVAL, TTT, CACHE, NGRAM)
