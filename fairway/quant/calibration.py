"""The text that calibration measures on: windows of the training text, text of the network's own making, or noise.

#1019 calibrates on text that the network wrote itself (temperature 0.8, random first token), which needs no data after
training: there it cost 0.0003 bpb against real text, and random tokens 0.002. Each function yields batches (B, T), int64,
on the CPU. The batches of several ranks are together those of one: every `ranks`-th belongs to a rank, and each has a
generator of its own.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import LongTensor

from fairway.lm.model import GPT, StreamState
from fairway.quant.hessian import evenly_spaced


def windows(tokens: np.ndarray, count: int, length: int, batch: int, rank: int = 0, ranks: int = 1) -> Iterator[LongTensor]:
    """`count` windows of `length` tokens, evenly spaced over `tokens`, which holds at least one."""
    starts = evenly_spaced(len(tokens), length, count)
    for index, size in _share(count, batch, rank, ranks):
        chosen = starts[index * batch : index * batch + size]
        yield torch.from_numpy(np.stack([tokens[start : start + length] for start in chosen]).astype(np.int64))


def generated(
    model: GPT, count: int, length: int, batch: int, seed: int, temperature: float = 0.8, rank: int = 0, ranks: int = 1
) -> Iterator[LongTensor]:
    """`count` texts of `length` tokens by the network itself, which is in evaluation mode; the first token is any, evenly."""
    for index, size in _share(count, batch, rank, ranks):
        yield _write(model, size, length, temperature, _generator(seed, index))


def random(
    vocabulary: int, count: int, length: int, batch: int, seed: int, rank: int = 0, ranks: int = 1
) -> Iterator[LongTensor]:
    """`count` windows of tokens drawn evenly from the whole vocabulary."""
    for index, size in _share(count, batch, rank, ranks):
        yield torch.randint(vocabulary, (size, length), generator=_generator(seed, index))


def _share(count: int, batch: int, rank: int, ranks: int) -> Iterator[tuple[int, int]]:
    """Number and size of each batch of this rank; the last of all may be smaller."""
    for index in range(rank, math.ceil(count / batch), ranks):
        yield index, min(batch, count - index * batch)


def _generator(seed: int, index: int) -> torch.Generator:
    """torch seeds from 32 bits only; numpy mixes both numbers into them."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence((seed, index)).generate_state(1)[0]))


@torch.no_grad()  # here and not around a yield, which would switch gradients off for the caller as well
def _write(model: GPT, size: int, length: int, temperature: float, generator: torch.Generator) -> LongTensor:
    """(size, length) tokens, each drawn on the CPU from softmax(logits / temperature) given all before it."""
    device = next(model.parameters()).device
    state = StreamState.start(length)
    columns = [torch.randint(model.architecture.vocabulary_size, (size, 1), generator=generator)]
    while len(columns) < length:
        logits_BV = model(columns[-1].to(device), state)[:, 0]
        columns.append(torch.multinomial((logits_BV / temperature).softmax(-1).cpu(), 1, generator=generator))
    return torch.cat(columns, dim=1)
