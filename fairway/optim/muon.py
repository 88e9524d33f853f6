"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

Matrices of equal shape are stacked and orthogonalised in one batch, which is where the time goes for small networks.
The momentum is Nesterov's sum form of the challenge's code, buffer ← μ·buffer + g, not torch.optim.Muon's average; since
the update is normalised, the two give the same step.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5  # quintic coefficients, one triple a step


def orthogonalise(update_NRC: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Push the singular values of each matrix (N, R, C) towards 1 by Newton–Schulz iterations in `dtype`."""
    x = update_NRC.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in NEWTON_SCHULZ:
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For 2-D parameters. The step is scaled by √max(1, rows/columns); weight decay is decoupled (lr · weight_decay)."""

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.bfloat16,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[parameter.shape].append(parameter)
            for parameters in by_shape.values():
                self._step_stack(parameters, group)

    def _step_stack(self, parameters: list[torch.nn.Parameter], group: dict) -> None:
        """One Newton–Schulz batch for matrices of one shape."""
        gradients = [parameter.grad for parameter in parameters]
        buffers = [self._buffer(parameter) for parameter in parameters]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, gradients)
        nesterov = torch._foreach_add(gradients, buffers, alpha=group["momentum"])
        directions = orthogonalise(torch.stack(nesterov), self.dtype)
        rows, columns = parameters[0].shape
        step = -group["lr"] * max(1.0, rows / columns) ** 0.5
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(parameters, list(directions.to(parameters[0].dtype).unbind()), alpha=step)

    def _buffer(self, parameter: torch.nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]
