"""Score-first test-time training: after a chunk has been scored, and only then, the network learns from it.

All weights learn, by SGD with momentum (#549, #598) or AdamW (#861), from the chunk's tokens in windows of the training
length, `epochs` times; the optimizer's state goes on from chunk to chunk. The learning rate is constant, so that a
decoder need not know how long the text will be.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fairway.lm.model import GPT
from fairway.score.config import Ttt


class TestTimeTraining:
    """Changes the weights of `model` in place, one call a chunk."""

    def __init__(self, model: GPT, settings: Ttt):
        self.model, self.settings = model, settings
        if settings.optimizer == "adamw":
            betas = (settings.momentum, 0.99)
            self.optimizer = torch.optim.AdamW(model.parameters(), settings.lr, betas, weight_decay=0.0, fused=True)
        else:
            self.optimizer = torch.optim.SGD(model.parameters(), settings.lr, settings.momentum)

    def learn(self, scored: np.ndarray) -> None:
        """`scored`: a chunk's tokens with the one before them, all of them already scored."""
        length = min(self.model.architecture.sequence_length, len(scored) - 1)
        count = (len(scored) - 1) // length
        windows = np.stack([scored[i * length : (i + 1) * length + 1] for i in range(count)]).astype(np.int64)
        windows = torch.from_numpy(windows).to(next(self.model.parameters()).device)
        with torch.enable_grad():
            for _ in range(self.settings.epochs):
                for batch in windows.split(self.settings.sequences_per_step):
                    self._step(batch)

    def _step(self, windows: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.model(windows[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).backward()
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizer.step()
