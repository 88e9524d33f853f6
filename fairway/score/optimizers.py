"""The optimizers of test-time training; the table at the end says what `ttt.optimizer` may name.

Nothing imports torch before it is called: processes without torch check the params against the table. Weight decay,
gradient clipping and learning-rate schedules are the caller's.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BETA2 = 0.99  # as in #1530; the average of torch's 0.999 would settle only after a text of 100 chunks is over
THREADS = 2  # per step of OrthogonalisedSgd


def adamw(groups: list[dict], lr: float, momentum: float) -> torch.optim.Optimizer:
    """#861. `momentum` is beta1."""
    import torch

    return torch.optim.AdamW(groups, lr, (momentum, BETA2), weight_decay=0.0, fused=True)


def sgd(groups: list[dict], lr: float, momentum: float) -> torch.optim.Optimizer:
    """#549."""
    import torch

    return torch.optim.SGD(groups, lr, momentum, fused=True)


class OrthogonalisedSgd:
    """#999: matrices move against their orthogonalised gradient, other tensors against the gradient itself.

    Three Newton–Schulz iterations and no factor for the shape, so every matrix moves by lr along all its singular vectors,
    however small the gradient. Momentum, which #999 does not have, replaces the gradient by the buffer
    ← momentum·buffer + gradient, without Nesterov's step. Matrices of equal shape are orthogonalised in one batch. The
    interface is that of torch.optim.Optimizer; it is no subclass because importing torch's optimizers takes 3 s.
    """

    def __init__(self, groups: list[dict], lr: float, momentum: float):
        from fairway.optim.muon import COEFFICIENTS, orthogonalise

        self.orthogonalise = partial(orthogonalise, coefficients=COEFFICIENTS["newton_schulz"][:3])
        self.param_groups = [{"lr": lr, "momentum": momentum} | group for group in groups]
        self.state: dict[torch.nn.Parameter, dict[str, torch.Tensor]] = defaultdict(dict)

    def step(self) -> None:
        """On a CPU every shape has a thread of its own, which gives the same bits on any number of cores."""
        import torch

        by_shape: dict[torch.Size, list[tuple[torch.nn.Parameter, dict]]] = defaultdict(list)
        for group in self.param_groups:
            for parameter in group["params"]:
                by_shape[parameter.shape].append((parameter, group))
        shapes = sorted(by_shape.values(), key=lambda members: -sum(parameter.numel() for parameter, _ in members))
        if shapes[0][0][0].is_cuda:
            list(map(self._move, shapes))
        else:
            with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                list(pool.map(self._move, shapes))

    def _move(self, members: list[tuple[torch.nn.Parameter, dict]]) -> None:
        """Move parameters of one shape, each given with its group."""
        import torch

        with torch.no_grad():
            updates = [self._accumulated(parameter, group["momentum"]) for parameter, group in members]
            if updates[0].ndim == 2:
                dtype = torch.bfloat16 if updates[0].is_cuda else torch.float32
                updates = self.orthogonalise(torch.stack(updates), dtype).float()
            for (parameter, group), update in zip(members, updates, strict=True):
                parameter.sub_(update, alpha=group["lr"])

    def _accumulated(self, parameter: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        if not momentum:
            return parameter.grad
        state = self.state[parameter]
        state["momentum"] = momentum * state["momentum"] + parameter.grad if state else parameter.grad
        return state["momentum"]


OPTIMIZERS = {"adamw": adamw, "sgd": sgd, "muon": OrthogonalisedSgd}  # each called with (groups, lr, momentum)
