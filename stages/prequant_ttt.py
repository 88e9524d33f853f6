"""prequant_ttt: the trained network learns from the holdout split before it is quantised.

`prequant_ttt.source: val` trains on the text that is scored later: the exposure ledger and the certificate say so.
"""

import time

import torch

from fairway.lm import checkpoint
from fairway.params import load
from fairway.text.shards import read_split
from fairway.train.config import PrequantTtt
from fairway.train.precision import default_precision
from fairway.train.prequant_ttt import adapt, batches
from stages.common import ARTIFACTS, PARAMS, REPORTS, Progress, replacing, run, write_json, write_ledger


def main() -> None:
    config = load(PARAMS, "prequant_ttt", PrequantTtt)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = checkpoint.network(ARTIFACTS / "train/checkpoint.safetensors").to(device).eval()
    architecture = model.architecture
    start = time.monotonic()
    losses, tokens = [], []
    if config.source != "none":
        tokens = read_split(ARTIFACTS / "tokenize" / config.source, architecture.vocabulary_size)[: config.max_tokens]
        steps = len(batches(tokens, architecture.sequence_length, config.sequences_per_step)) * config.epochs
        progress = Progress(steps, "steps", f"prequant_ttt on {config.source}")
        losses = adapt(
            model, tokens, config, default_precision(device), lambda count, loss: progress.advance(count, f"loss {loss:.3f}")
        )
        progress.close(f"loss {losses[0]:.3f} in the first epoch, {losses[-1]:.3f} in the last")

    with replacing(ARTIFACTS / "prequant_ttt/checkpoint.safetensors") as path:
        checkpoint.save(path, architecture, model.state_dict())
    write_ledger("prequant_ttt", config.source, len(tokens))
    metrics = {
        "prequant_first_loss": round(losses[0], 5) if losses else None,
        "prequant_last_loss": round(losses[-1], 5) if losses else None,
        "prequant_tokens": len(tokens),
        "prequant_source": config.source,
    }
    write_json(REPORTS / "prequant_ttt/metrics.json", metrics)
    write_json(REPORTS / "prequant_ttt/timing.json", {"seconds": round(time.monotonic() - start, 2)})


if __name__ == "__main__":
    run(main)
