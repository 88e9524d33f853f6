"""Muon: momentum whose matrices are orthogonalized before they are applied (Jordan et al. 2024).

Matrices of equal shape are stacked and orthogonalized in one batch, because orthogonalizing takes most of the time in small
networks. With several ranks, each rank owns a slice of every stack: it receives the reduced gradients, keeps the momentum and
orthogonalizes; then the updates are gathered from the owners. Communication of one stack overlaps with computation of others
(the parallel Muon of #549). The momentum is Nesterov's sum form of the challenge's code, buffer ← μ·buffer + g, not
torch.optim.Muon's average; the two give the same step, because the update is normalized.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

Coefficients = tuple[tuple[float, float, float], ...]  # of X ← aX + (bA + cA²)X, A = XXᵀ; one triple an iteration

# For a matrix whose largest singular value is 100 times its smallest, Newton–Schulz (Jordan et al. 2024) brings them to
# 0.68–1.20, and Polar Express (Amsel et al. 2025, rounded), whose polynomial changes from step to step, to 0.86–1.14.
COEFFICIENTS: dict[str, Coefficients] = {
    "newton_schulz": ((3.4445, -4.7750, 2.0315),) * 5,
    "polar_express": (
        (8.1566, -22.4833, 15.8788),
        (4.0429, -2.8089, 0.5000),
        (3.8917, -2.7725, 0.5061),
        (3.2858, -2.3681, 0.4645),
        (2.3465, -1.7098, 0.4232),
    ),
}

STACK = 1 << 20  # largest number of elements in a rank's share of a stack, so that it stays in the CPU's cache between passes


def orthogonalise(
    update_NRC: Tensor, dtype: torch.dtype = torch.bfloat16, coefficients: Coefficients = COEFFICIENTS["newton_schulz"]
) -> Tensor:
    """Push the singular values of each matrix (N, R, C) towards 1 by quintic iterations in `dtype`, the result's dtype."""
    wide = update_NRC.shape[-2] <= update_NRC.shape[-1]  # use the Gram matrix of the shorter side
    norm_N11 = torch.linalg.vector_norm(update_NRC, dim=(-2, -1), keepdim=True, dtype=torch.float32) + 1e-7
    x = update_NRC.to(dtype) / (norm_N11 * margin(coefficients)).to(dtype)
    for a, b, c in coefficients:
        gram = x @ x.mT if wide else x.mT @ x
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # one rounding: half the error of two sums in bf16
        left, right = (polynomial, x) if wide else (x, polynomial)
        x = torch.baddbmm(x, left, right, beta=a)
    return x


def margin(coefficients: Coefficients) -> float:
    """The divisor that keeps singular values below 1 at the start.

    Newton–Schulz repeats one step and tolerates values above 1. The first polynomial of Polar Express is made for [0, 1] and
    grows steeply outside, where rounding to bf16 can put a matrix of rank 1.
    """
    return 1.0 if coefficients[0] == COEFFICIENTS["newton_schulz"][0] else 1.01


@dataclass
class Stack:
    """Matrices of one shape and one parameter group during one step.

    `content` is what this rank holds of them: first its slice (n, R, C) of the gradients, then of the updates, then all
    updates (N, R, C), padded with zeros to a multiple of the ranks. It is valid after `work` has been waited for.
    """

    parameters: list[nn.Parameter]
    group: dict
    content: Tensor | None = None
    work: dist.Work | None = None

    def numel(self) -> int:
        return len(self.parameters) * self.parameters[0].numel()

    def reduce(self) -> None:
        """Start averaging the gradients over the ranks; each rank receives its slice."""
        gradients = [parameter.grad for parameter in self.parameters]
        ranks = world_size()
        if ranks == 1:
            self.content = torch.stack(gradients)
            return
        share = -(-len(gradients) // ranks)
        every_NRC = gradients[0].new_zeros(share * ranks, *gradients[0].shape)
        torch.stack(gradients, out=every_NRC[: len(gradients)])
        self.content = torch.empty_like(every_NRC[:share])
        self.work = dist.reduce_scatter_single(self.content, every_NRC, dist.ReduceOp.AVG, async_op=True)

    def wait(self) -> Tensor:
        if self.work is not None:
            self.work.wait()
            self.work = None
        return self.content

    def gather(self, update_nRC: Tensor) -> None:
        """Start gathering the slices of all ranks."""
        ranks = world_size()
        if ranks == 1:
            self.content = update_nRC
            return
        self.content = update_nRC.new_empty(ranks * len(update_nRC), *update_nRC.shape[1:])
        self.work = dist.all_gather_single(self.content, update_nRC, async_op=True)

    def apply(self) -> None:
        """Decay the weights and take a step of √max(1, rows/columns) times the learning rate."""
        lr, (rows, columns) = self.group["lr"], self.parameters[0].shape
        updates = self.wait()[: len(self.parameters)].to(self.parameters[0].dtype).unbind()
        torch._foreach_mul_(self.parameters, 1 - lr * self.group["weight_decay"])
        torch._foreach_add_(self.parameters, updates, alpha=-lr * max(1.0, rows / columns) ** 0.5)


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def stacks(groups: list[dict]) -> Iterator[Stack]:
    """Stacks of matrices of one group and shape, of about equal size, with a rank's share of at most STACK elements."""
    for group in groups:
        by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            by_shape[parameter.shape].append(parameter)
        for parameters in by_shape.values():
            share = -(-len(parameters) // world_size())
            parts = -(-share * parameters[0].numel() // STACK)
            size = -(-share // parts) * world_size()
            yield from (Stack(parameters[start : start + size], group) for start in range(0, len(parameters), size))


class Muon(torch.optim.Optimizer):
    """For 2-D parameters, all of which have a gradient. Weight decay is decoupled: each step shrinks by lr · weight_decay.

    `parameters` may be parameter groups with their own lr, momentum and weight_decay. If torch.distributed is initialized,
    each rank passes its own gradients, which are averaged here; all ranks must make the same calls in the same order. One
    step is `launch`, then any other work, then `squared_norm` and `scale` to clip gradients, then `step`, which launches if
    that was not done. The state is this rank's slice of the momentum, stored under the first parameter of each stack.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict],
        lr: float,
        momentum: float,
        weight_decay: float,
        dtype: torch.dtype = torch.bfloat16,
        coefficients: Coefficients = COEFFICIENTS["newton_schulz"],
        row_normalise: bool = False,
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype, self.coefficients, self.row_normalise = dtype, coefficients, row_normalise
        self.stacks: list[Stack] = []  # of the current step, the largest first because its communication takes longest

    @torch.no_grad()
    def launch(self) -> None:
        """Start reducing the gradients, which must be complete."""
        self.stacks = sorted(stacks(self.param_groups), key=Stack.numel, reverse=True)
        for stack in self.stacks:
            stack.reduce()

    @torch.no_grad()
    def squared_norm(self) -> Tensor:
        """Sum of squares of all reduced gradients, on every rank. Call after `launch`; waits for the reduction."""
        norms = torch._foreach_norm([stack.wait() for stack in self.stacks])
        total = torch.stack(norms).square().sum()
        if world_size() > 1:
            dist.all_reduce(total)
        return total

    @torch.no_grad()
    def scale(self, factor: float | Tensor) -> None:
        """Multiply the reduced gradients. Call after `launch`; waits for the reduction."""
        torch._foreach_mul_([stack.wait() for stack in self.stacks], factor)

    @torch.no_grad()
    def step(self) -> None:
        if not self.stacks:
            self.launch()
        for stack in self.stacks:
            stack.gather(self._update(stack))
        for stack in self.stacks:
            stack.apply()
        self.stacks = []

    def _update(self, stack: Stack) -> Tensor:
        """The updates (n, R, C) from this rank's gradients, after momentum and orthogonalization."""
        gradient, momentum = stack.wait(), stack.group["momentum"]
        state = self.state[stack.parameters[0]]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        buffer = torch.add(gradient, state["momentum"], alpha=momentum, out=state["momentum"])
        nesterov = torch.add(gradient, buffer, alpha=momentum, out=gradient)
        if self.row_normalise:  # MuonEq-R, which the merged SP4096 records apply
            nesterov /= torch.linalg.vector_norm(nesterov, dim=-1, keepdim=True, dtype=torch.float32).clamp(min=1e-7)
        return orthogonalise(nesterov, self.dtype, self.coefficients)
