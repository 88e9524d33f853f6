"""Averages of the weights over training: the shadow that is exported instead of the last step's weights.

Both are float32 whatever the weights are, hold parameters only (not buffers), and start as the initial weights.
"""

import torch
from torch import Tensor, nn


def copy_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone().float() for name, parameter in model.named_parameters()}


@torch.no_grad()
def move_(shadow: dict[str, Tensor], model: nn.Module, fraction: float) -> None:
    """shadow ← (1 − fraction)·shadow + fraction·weights."""
    weights = [parameter.float() for parameter in model.parameters()]
    torch._foreach_lerp_(list(shadow.values()), weights, fraction)


class WeightAverage:
    """Exponential moving average: shadow ← decay·shadow + (1 − decay)·weights after every step.

    Early on the decay is min(decay, (1 + step) / (10 + step)), so that the first weights are forgotten in short runs.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps, self.shadow = decay, 0, copy_of(model)

    def update(self, model: nn.Module) -> None:
        self.steps += 1
        move_(self.shadow, model, 1 - min(self.decay, (1 + self.steps) / (10 + self.steps)))

    def state_dict(self) -> dict:
        return {"steps": self.steps, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.shadow = state["steps"], state["shadow"]


class SnapshotAverage:
    """Stochastic weight averaging: shadow is the plain mean of the weights at every update (Izmailov et al. 2018).

    Which steps count is the caller's choice: #549 takes every 50th late in the warm-down.
    """

    def __init__(self, model: nn.Module):
        self.snapshots, self.shadow = 0, copy_of(model)

    def update(self, model: nn.Module) -> None:
        self.snapshots += 1
        move_(self.shadow, model, 1 / self.snapshots)

    def state_dict(self) -> dict:
        return {"snapshots": self.snapshots, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.snapshots, self.shadow = state["snapshots"], state["shadow"]
