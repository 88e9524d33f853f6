"""Second moments of what goes into each linear layer: the Hessian of its squared output error, halved.

H = Σ x xᵀ / rows, over every position of every batch, of the very network that is quantised: the published recurrent
system took them from a network without the recurrence and lost by it (#1406). Products of one batch are float32, their
sum is float64, so that millions of rows lose nothing.
"""

from collections.abc import Iterable

import torch
from torch import LongTensor, Tensor, nn


def collect_hessians(model: nn.Module, batches: Iterable[LongTensor], names: list[str]) -> dict[str, Tensor]:
    """The Hessians, float64 (C, C), of the linear layers that own the weights `names` (such as "blocks.0.up.weight").

    `batches` are tokens (B, T), at least one batch. The model is left without hooks, whatever happens.
    """
    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in names}
    sums = {
        name: torch.zeros(layer.in_features, layer.in_features, dtype=torch.float64, device=layer.weight.device)
        for name, layer in layers.items()
    }
    rows = dict.fromkeys(names, 0)

    def observe(name: str, inputs: Tensor) -> None:
        x_NC = inputs.flatten(0, -2).float()
        sums[name] += x_NC.T @ x_NC
        rows[name] += x_NC.shape[0]

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: observe(name, inputs[0])) for name, layer in layers.items()
    ]
    try:
        with torch.no_grad():
            for tokens_BT in batches:
                model(tokens_BT)
    finally:
        for handle in handles:
            handle.remove()
    return {name: total / rows[name] for name, total in sums.items()}


def evenly_spaced(total: int, length: int, count: int) -> list[int]:
    """Starts of `count` windows of `length` tokens, the first at the start and the last at the end of `total` tokens."""
    return [index * (total - length) // max(count - 1, 1) for index in range(count)]
