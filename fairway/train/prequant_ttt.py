"""Test-time training before quantisation: AdamW over a few epochs, with lower learning rates in earlier blocks.

The first `freeze_blocks` blocks do not learn. Block i of the others has the learning rate
lr · (first_block + (1 − first_block) · i / (blocks − 1)) for each of its tensors (#1406's code reached 0.08 % of the
weights), and tensors outside the blocks have lr. A cosine over the steps of all epochs lowers the rates to
`final_lr_fraction` of that.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.lm.parameters import layer_of
from fairway.train.config import PrequantTtt


def parameter_groups(model: GPT, config: PrequantTtt) -> list[dict]:
    """One group per block that learns, and one for the rest; the cosine scales `base_lr`."""
    learning = list(model.blocks)[config.freeze_blocks :]
    last = max(len(learning) - 1, 1)
    groups = [
        {"params": list(block.parameters()), "base_lr": config.lr * (config.first_block + (1 - config.first_block) * i / last)}
        for i, block in enumerate(learning)
    ]
    rest = [parameter for name, parameter in model.named_parameters() if layer_of(name) is None]
    return [*groups, {"params": rest, "base_lr": config.lr}]


def batches(tokens: np.ndarray, sequence_length: int, sequences: int) -> list[tuple[int, int]]:
    """(first, last) window of each step of an epoch; window w starts at w · sequence_length."""
    windows = (len(tokens) - 1) // sequence_length
    return [(first, min(first + sequences, windows)) for first in range(0, windows, sequences)]


def adapt(
    model: GPT,
    tokens: np.ndarray,
    config: PrequantTtt,
    dtype: torch.dtype,
    advance: Callable[[int, float], None] = lambda steps, loss: None,
) -> list[float]:
    """Train `model` in place on tokens in their order. Returns the mean loss of each epoch in nats per token.

    Raises InputError if a loss is not finite.
    """
    length = model.architecture.sequence_length
    device = next(model.parameters()).device
    model.blocks[: config.freeze_blocks].requires_grad_(False)
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr, weight_decay=0.0, fused=True)
    epoch_batches = batches(tokens, length, config.sequences_per_step)
    total = config.epochs * len(epoch_batches)
    losses = []
    for step, (first, last) in enumerate(epoch_batches * config.epochs):
        cosine = (1 + math.cos(math.pi * (step / total))) / 2
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * (config.final_lr_fraction + (1 - config.final_lr_fraction) * cosine)
        starts = range(first * length, last * length, length)
        windows = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)
        optimizer.zero_grad(set_to_none=True)
        loss = _loss(model, torch.from_numpy(windows).to(device), dtype)
        loss.backward()
        if config.gradient_clip:
            nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip)
        optimizer.step()
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise InputError(f"the loss of prequant_ttt is {losses[-1]} at step {step + 1} of {total}; lower prequant_ttt.lr")
        advance(1, losses[-1])
    steps = len(epoch_batches)
    return [float(np.mean(losses[epoch * steps :][:steps])) for epoch in range(config.epochs)]


def _loss(model: GPT, windows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    with torch.autocast(windows.device.type, dtype=dtype, enabled=dtype != torch.float32):
        logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
