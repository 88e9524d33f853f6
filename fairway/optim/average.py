"""Averages over the steps of training: of the weights, and of the gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exported instead of the last step's weights: shadow ← (1 − f)·shadow + f·weights at update n, in float32.

    It holds the parameters and starts as the initial weights. With a decay this is an exponential moving average, f = 1 −
    min(decay, (1 + n) / (10 + n)), so that short runs forget the initial weights. Without one it is the plain mean of the
    weights at all updates, f = 1/n: stochastic weight averaging (Izmailov et al. 2018).
    """

    def __init__(self, model: nn.Module, decay: float | None = None):
        self.decay, self.updates = decay, 0
        self.shadow = {name: parameter.detach().clone().float() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        n = self.updates
        fraction = 1 / n if self.decay is None else 1 - min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(self.shadow.values()), [parameter.float() for parameter in model.parameters()], fraction)

    def state_dict(self) -> dict:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.updates, self.shadow = state["updates"], state["shadow"]


class Grokfast:
    """Amplifies the slow part of the gradients (Lee et al. 2024, arXiv 2405.20233, the EMA filter).

    slow ← decay·slow + (1 − decay)·g, starting as the first g; then g ← g + weight·slow. In #1185 it acts after clipping, on
    each rank's own gradients before they are reduced, so each rank has its own slow part.
    """

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
