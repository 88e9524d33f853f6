"""Averages of the weights over training; the average (`shadow`) is exported instead of the last step's weights.

Both kinds are float32 whatever the dtype of the weights, hold parameters only (not buffers), and start as the initial weights.
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

    The decay is min(decay, (1 + step) / (10 + step)), so that short runs forget the initial weights.
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
    """Stochastic weight averaging: the shadow is the plain mean of the weights at all updates (Izmailov et al. 2018).

    The caller chooses the steps: #549 takes every 50th step late in the warm-down.
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
