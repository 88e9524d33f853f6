"""Windows of the training stream, in a shuffled order that depends only on the seed and the step.

Each epoch cuts the stream into windows at another random offset and visits all of them once, so the position of the
loader is the step itself: there is no other state to save.
"""

import numpy as np
import torch
from torch import Tensor

from fairway.errors import InputError


class WindowLoader:
    """Batches of `sequences` windows (B, T + 1) of uint16 `tokens`: inputs and, one position later, targets."""

    def __init__(self, tokens: np.ndarray, sequence_length: int, sequences: int, seed: int):
        self.tokens, self.sequence_length, self.sequences, self.seed = tokens, sequence_length, sequences, seed
        self.windows = (len(tokens) - 1) // sequence_length - 1  # one less: room for the offset
        if self.windows < 1:
            raise InputError(
                f"the train split has {len(tokens):,} tokens and needs at least {2 * sequence_length + 1:,} "
                "for one window; add documents or lower train.sequence_length"
            )
        self._epoch, self._starts = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> Tensor:
        """The windows of a step, int64 (B, T + 1)."""
        positions = range(step * self.sequences, (step + 1) * self.sequences)
        windows = [self._window(position) for position in positions]
        return torch.from_numpy(np.stack(windows).astype(np.int64))

    def _window(self, position: int) -> np.ndarray:
        epoch, index = divmod(position, self.windows)
        if epoch != self._epoch:
            random = np.random.default_rng((self.seed, epoch))
            offset = random.integers(self.sequence_length)
            self._epoch = epoch
            self._starts = offset + self.sequence_length * random.permutation(self.windows)
        start = int(self._starts[index])
        return self.tokens[start : start + self.sequence_length + 1]
