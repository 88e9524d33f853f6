"""Windows of the training tokens, in an order that depends only on the params and the step.

The step is the loader's only state, so a save needs no other. An epoch visits every window of every shard once, and ranks
take consecutive parts of a step.
"""

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fairway.errors import InputError

GOLDEN = (math.sqrt(5) - 1) / 2  # multiples of the golden section, modulo 1, spread most evenly


class WindowLoader:
    """Batches of `sequences` windows (B, T + 1) of uint16 `tokens`: inputs and, one position later, targets.

    `order` shuffled: a new random order and a new offset in each epoch. sequential: one after the other, as published.
    coprime: with a stride that shares no factor with the number of windows, so that every step samples all shards.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        sequence_length: int,
        sequences: int,
        seed: int,
        order: Literal["shuffled", "sequential", "coprime"] = "shuffled",
    ):
        self.tokens, self.sequence_length, self.sequences, self.seed = tokens, sequence_length, sequences, seed
        self.order = order
        spare = order == "shuffled"  # one window less, to leave room for the offset
        self.windows = (len(tokens) - 1) // sequence_length - spare
        if self.windows < 1:
            raise InputError(
                f"the train split has {len(tokens):,} tokens and needs at least {(1 + spare) * sequence_length + 1:,} "
                "for one window; add documents or lower train.sequence_length"
            )
        self._epoch, self._starts = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int, rank: int = 0, ranks: int = 1) -> Tensor:
        """The windows of a step that belong to a rank, int64 (B / ranks, T + 1)."""
        share = self.sequences // ranks
        first = step * self.sequences + rank * share
        windows = [self._window(position) for position in range(first, first + share)]
        return torch.from_numpy(np.stack(windows).astype(np.int64))

    def _window(self, position: int) -> np.ndarray:
        epoch, index = divmod(position, self.windows)
        if epoch != self._epoch:
            self._epoch, self._starts = epoch, self._epoch_starts(epoch)
        start = int(self._starts[index])
        return self.tokens[start : start + self.sequence_length + 1]

    def _epoch_starts(self, epoch: int) -> np.ndarray:
        """The first token of every window of an epoch, in the order of visits."""
        if self.order == "sequential":
            return self.sequence_length * np.arange(self.windows)
        random = np.random.default_rng((self.seed, epoch))
        if self.order == "shuffled":
            return random.integers(self.sequence_length) + self.sequence_length * random.permutation(self.windows)
        visits = random.integers(self.windows) + coprime_stride(self.windows) * np.arange(self.windows)
        return self.sequence_length * (visits % self.windows)


def coprime_stride(windows: int) -> int:
    """The smallest number from 0.618 · windows on that shares no factor with `windows`."""
    return next(stride for stride in range(max(1, int(GOLDEN * windows)), windows + 2) if math.gcd(stride, windows) == 1)
