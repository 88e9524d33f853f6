"""Plain values for every param of the predictor, so that a test names only those it is about."""

from fairway.mixture.config import Cache, Ngram
from fairway.score.config import Eval, Settings, Ttt

EVAL = Eval(
    method="streaming",
    context=16,
    stride=8,
    block=8,
    batch=1,
    segment_tokens=0,
    reset="never",
    allow_long_context=False,
)
TTT = Ttt(
    optimizer="sgd",
    parameters="all",
    freeze_blocks=0,
    first_block=1.0,
    reset="never",
    chunk_tokens=40,
    epochs=2,
    adaptive_epochs=False,
    sequences_per_step=2,
    lr=0.05,
    schedule="constant",
    momentum=0.9,
    weight_decay=0.0,
    gradient_clip=1.0,
    lora_rank=2,
    lora_alpha=8.0,
    lora_targets=["query", "feed_forward", "head"],
)
CACHE = Cache(tokens=30, sharpness=20.0, weight=0.2)
NGRAM = Ngram(
    mixture="tree",
    estimator="kneser_ney",
    max_order=3,
    discounts=[0.5, 0.9, 1.3],
    table_entries=1 << 20,
    update_tokens=1,
    learning_rate=0.02,
    entropy_bins=4,
    neural_weight=0.7,
    tilt=1.0,
)
SETTINGS = Settings(EVAL, TTT, CACHE, NGRAM)
