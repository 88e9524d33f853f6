"""eval_sliding: the decoded artifact on the validation stream, its weights frozen.

Three scores: the float checkpoint and the decoded artifact in windows that do not overlap, as the challenge
measures its round trips, and the artifact by `eval.method`, whose per-token scores are kept.
"""

import time

from fairway.lm import checkpoint
from fairway.params import load
from fairway.score.config import Eval
from fairway.score.streaming import score_stream
from fairway.score.windows import score_windows
from stages.common import ARTIFACTS, PARAMS, REPORTS, Progress, replacing, run, write_json
from stages.validation import decoded_model, read_validation, write_scores


def main() -> None:
    config = load(PARAMS, "eval", Eval)
    model = decoded_model()
    config.check(model.architecture.sequence_length)
    validation = read_validation(config.context)
    tokens = validation.tokens
    device = next(model.parameters()).device
    float_model = checkpoint.network(ARTIFACTS / "prequant_ttt/checkpoint.safetensors").to(device)

    length = model.architecture.sequence_length
    progress = Progress(3 * (len(tokens) - 1), "tokens", "eval_sliding")
    unquantised = score_windows(float_model, tokens, length, length, advance=progress.advance)
    quantised = score_windows(model, tokens, length, length, advance=progress.advance)
    start = time.monotonic()
    if config.method == "streaming":
        scores = score_stream(model, tokens, config, advance=progress.advance)
    else:
        scores = score_windows(model, tokens, config.context, config.stride, config.batch, advance=progress.advance)
    seconds = time.monotonic() - start
    progress.close(f"{validation.bpb(scores['nats']):.4f} bpb")

    write_scores(ARTIFACTS / "eval_sliding/scores.npy", validation, **scores)
    with replacing(ARTIFACTS / "eval_sliding/frozen.safetensors") as path:
        checkpoint.save(path, model.architecture, model.state_dict())
    gap = validation.bpb(quantised["nats"]) - validation.bpb(unquantised["nats"])
    write_json(
        REPORTS / "eval_sliding/metrics.json",
        {
            "val_bpb_float": round(validation.bpb(unquantised["nats"]), 6),
            "val_bpb_quant": round(validation.bpb(quantised["nats"]), 6),
            "val_bpb_sliding": round(validation.bpb(scores["nats"]), 6),
            "quant_gap_bpb": round(gap, 6),
        },
    )
    rate = (len(tokens) - 1) / seconds
    write_json(REPORTS / "eval_sliding/timing.json", {"seconds": round(seconds, 2), "tokens_per_second": round(rate)})


if __name__ == "__main__":
    run(main)
