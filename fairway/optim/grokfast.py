"""Grokfast amplifies the slow part of the gradients (Lee et al. 2024, arXiv 2405.20233, the EMA filter).

In #1185 it acts after clipping, on each rank's own gradients before they are reduced, so each rank has its own slow part.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Grokfast:
    """slow ← decay·slow + (1 − decay)·g, starting as the first g; then g ← g + weight·slow."""

    def __init__(self, weight: float, decay: float):
        self.weight, self.decay = weight, decay
        self.slow: list[Tensor] = []  # in the order of the parameters

    @torch.no_grad()
    def apply(self, parameters: Iterable[nn.Parameter]) -> None:
        """Change the gradients in place. The same parameters must have a gradient at every call."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.slow:
            torch._foreach_lerp_(self.slow, gradients, 1 - self.decay)
        else:
            self.slow = [gradient.clone() for gradient in gradients]
        torch._foreach_add_(gradients, self.slow, alpha=self.weight)

    def state_dict(self) -> dict:
        return {"slow": self.slow}

    def load_state_dict(self, state: dict) -> None:
        self.slow = state["slow"]
