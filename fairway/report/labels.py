"""The one table of what each score is called and where it stands, from the float weights to the mixture."""

from typing import NamedTuple


class Score(NamedTuple):
    name: str  # in tables and charts
    stage: str  # of the pipeline, whose metrics.json holds it
    metric: str  # its key there and in reports/summary.json
    meaning: str  # a phrase in Markdown
    optional: bool = False
    column: str = ""  # of its per-token scores in the tables of the text; "" where the stage keeps none
    color: str = ""  # of its curve


FLOAT, QUANTIZED, STREAMING, TTT, CACHE, MIXTURE = SCORES = (
    Score("float", "eval_sliding", "val_bpb_float", "trained weights before quantization, in windows that do not overlap"),
    Score("quantized", "eval_sliding", "val_bpb_quant", "decoded artifact, same windows"),
    Score(
        "streaming",
        "eval_sliding",
        "val_bpb_sliding",
        "decoded artifact, weights frozen, scored by `eval.method`",
        column="streaming",
        color="grey",
    ),
    Score("TTT", "eval_ttt", "val_bpb_ttt", "learns from each chunk after scoring it", column="ttt", color="blue"),
    Score("cache", "eval_ttt", "val_bpb_cache", "the same, blended with a cache of its hidden states", optional=True),
    Score(
        "mixture",
        "eval_ngram",
        "val_bpb_ngram",
        "mixed with what the text so far predicts, by `ngram.mixture`",
        column="ngram",
        color="orange",
    ),
)
ESTIMATE = " (an estimate)"
PER_TOKEN = tuple(score for score in SCORES if score.column)  # those of which every token's score is kept
LEARNERS = (TTT, MIXTURE)  # learn from the text that they score; compared with STREAMING


def doubt(summary: dict) -> str:
    """What follows the score of a summary wherever it is shown: nothing if it is proved."""
    return "" if summary.get("legal") is True else ESTIMATE
