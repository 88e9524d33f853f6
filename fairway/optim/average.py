"""Exponential moving average of the weights: the shadow that is exported instead of the last step's weights."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """shadow ← decay·shadow + (1 − decay)·weights after every step, in float32.

    Early on the decay is min(decay, (1 + step) / (10 + step)), so that the first weights are forgotten in short runs.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.shadow = {name: parameter.detach().clone().float() for name, parameter in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights = [parameter.detach().float() for parameter in model.parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), weights, 1 - decay)

    def state_dict(self) -> dict[str, Tensor | int]:
        return {"steps": self.steps, "shadow": self.shadow}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.shadow = state["steps"], state["shadow"]
