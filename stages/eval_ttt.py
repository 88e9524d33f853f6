"""eval_ttt: streaming scores of the decoded artifact, which learns from each chunk once the chunk has been scored."""

import time

import torch

from fairway.params import load
from fairway.score.config import Eval, Ttt
from fairway.score.streaming import score_stream
from fairway.score.ttt import TestTimeTraining
from stages.shell import ARTIFACTS, PARAMS, REPORTS, Progress, run, write_json
from stages.validation import decoded_model, read_validation, write_scores


def main() -> None:
    settings = load(PARAMS, "eval", Eval)
    config = load(PARAMS, "ttt", Ttt)
    model = decoded_model()
    settings.check(model.architecture.sequence_length)
    validation = read_validation(settings.context)
    training = TestTimeTraining(model, config)
    chunk = config.chunk_tokens if config.optimizer != "none" else None
    progress = Progress(len(validation.tokens) - 1, "tokens", "eval_ttt")
    start = time.monotonic()
    with torch.no_grad():
        scores = score_stream(
            model, validation.tokens, settings.context, settings.block, progress.advance, chunk, training.learn
        )
    seconds = time.monotonic() - start
    progress.close(f"{validation.bpb(scores.nats):.4f} bpb")

    write_scores(ARTIFACTS / "eval_ttt/scores.npy", validation, scores)
    updates = (len(scores.nats) - 1) // chunk if chunk else 0
    metrics = {"val_bpb_ttt": round(validation.bpb(scores.nats), 6), "ttt_updates": updates}
    write_json(REPORTS / "eval_ttt/metrics.json", metrics)
    rate = len(scores.nats) / seconds
    write_json(REPORTS / "eval_ttt/timing.json", {"seconds": round(seconds, 2), "tokens_per_second": round(rate)})


if __name__ == "__main__":
    run(main)
