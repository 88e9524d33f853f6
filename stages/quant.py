"""quant: the adapted checkpoint on integer grids, the weights of linear layers by GPTQ with Hessians from train shards.

Calibration reads evenly spaced windows of the training text, of the length the network was trained on, so that the same
checkpoint and params give the same integers. Nothing here sees the holdout or the validation text.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch

from fairway.lm import checkpoint
from fairway.lm.model import GPT, linear_names
from fairway.params import load
from fairway.quant import artifact
from fairway.quant.config import Quant
from fairway.quant.hessian import collect_hessians, evenly_spaced
from fairway.quant.quantiser import quantise_state, summarise
from fairway.text.shards import read_split
from stages import shell

SPLIT = "train"  # that the Hessians are of
BATCH_TOKENS = 8192  # per calibration step: bounds the memory of the logits


def main() -> None:
    params = load(shell.PARAMS, "quant", Quant)
    architecture, state = checkpoint.load(shell.ARTIFACTS / "prequant_ttt" / "checkpoint.safetensors")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = GPT(architecture).to(device).eval()
    model.load_state_dict(state)

    start = time.monotonic()
    tokens, hessians = 0, {}
    if params.method == "gptq":
        train = read_split(shell.ARTIFACTS / "tokenize" / SPLIT, architecture.vocabulary_size)
        length = min(architecture.sequence_length, len(train))
        windows = max(min(params.calibration_tokens, len(train)) // length, 1)
        tokens = windows * length
        starts = evenly_spaced(len(train), length, windows)
        hessians = collect_hessians(model, calibration_batches(train, starts, length, device), linear_names(model))
    calibrated = time.monotonic()

    state = {name: tensor.detach() for name, tensor in model.state_dict().items()}  # in the order of the network
    progress = shell.Progress(len(state), "tensors", "quant: rounding")
    matrices, small, report = quantise_state(state, hessians, params, lambda name: progress.advance(1, name))
    metrics = summarise(state, matrices, report)
    progress.close(f"{metrics['bits_per_weight']:.3f} bits per weight")
    for row in report:
        if row["method"] == "fallback":
            print(f"{row['name']}: Hessian not positive definite at any damping; rounded to nearest", flush=True)

    with shell.replacing(shell.ARTIFACTS / "quant" / "integers.safetensors") as path:
        artifact.save(path, architecture, matrices, small)
    shell.write_ledger("quant", SPLIT, tokens)
    shell.write_json(shell.REPORTS / "quant" / "metrics.json", metrics)
    shell.write_tsv(shell.REPORTS / "quant" / "matrices.tsv", report)
    timing = {
        "seconds": time.monotonic() - start,
        "calibration_tokens": tokens,
        "calibration_seconds": calibrated - start,
        "calibration_tokens_per_second": tokens / (calibrated - start),
    }
    shell.write_json(shell.REPORTS / "quant" / "timing.json", timing)


def calibration_batches(tokens: np.ndarray, starts: list[int], length: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Windows of `length` tokens at `starts`, as int64 (B, length)."""
    progress = shell.Progress(len(starts) * length, "tokens", "quant: calibration")
    size = max(BATCH_TOKENS // length, 1)
    for first in range(0, len(starts), size):
        windows = [tokens[start : start + length] for start in starts[first : first + size]]
        yield torch.from_numpy(np.stack(windows).astype(np.int64)).to(device)
        progress.advance(len(windows) * length)
    progress.close()


if __name__ == "__main__":
    shell.run(main)
