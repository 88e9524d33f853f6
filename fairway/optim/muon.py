"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

Matrices of equal shape are stacked and orthogonalised in one batch, which is where the time goes for small networks. With
several ranks each owns a slice of every stack: gradients are reduced to the owner, who keeps the momentum and
orthogonalises, and updates are gathered from the owners, both while other stacks are at work (the parallel Muon of #549).
The momentum is Nesterov's sum form of the challenge's code, buffer ← μ·buffer + g, not torch.optim.Muon's average; since
the update is normalised, the two give the same step.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

Coefficients = tuple[tuple[float, float, float], ...]  # of X ← aX + (bA + cA²)X, A = XXᵀ; one triple an iteration

# Newton–Schulz (Jordan et al. 2024) brings singular values to 0.68–1.20 of a matrix whose largest is 100 times its smallest;
# Polar Express (Amsel et al. 2025, rounded), whose polynomial changes from step to step, to 0.86–1.14.
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

STACK = 1 << 20  # elements of a rank's share of a stack, at most: more would leave the cache between the passes over them


def orthogonalise(
    update_NRC: Tensor, dtype: torch.dtype = torch.bfloat16, coefficients: Coefficients = COEFFICIENTS["newton_schulz"]
) -> Tensor:
    """Push the singular values of each matrix (N, R, C) towards 1 by quintic iterations in `dtype`, which the result has."""
    wide = update_NRC.shape[-2] <= update_NRC.shape[-1]  # the Gram matrix is that of the shorter side
    norm_N11 = torch.linalg.vector_norm(update_NRC, dim=(-2, -1), keepdim=True, dtype=torch.float32) + 1e-7
    x = update_NRC.to(dtype) / (norm_N11 * margin(coefficients)).to(dtype)
    for a, b, c in coefficients:
        gram = x @ x.mT if wide else x.mT @ x
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)  # rounds once: half the error of separate sums in bf16
        left, right = (polynomial, x) if wide else (x, polynomial)
        x = torch.baddbmm(x, left, right, beta=a)
    return x


def margin(coefficients: Coefficients) -> float:
    """How far below 1 singular values must start, as a divisor.

    Newton–Schulz is the same step over and over and forgives a start above 1; the first polynomial of Polar Express is
    made for [0, 1] and grows steeply outside, where rounding to bf16 may put a matrix of rank 1.
    """
    return 1.0 if coefficients[0] == COEFFICIENTS["newton_schulz"][0] else 1.01


def normalise_rows_(update_NRC: Tensor) -> Tensor:
    """Every row to length 1, in place: MuonEq-R, which the merged SP4096 records put before the orthogonalisation."""
    norm_NR1 = torch.linalg.vector_norm(update_NRC, dim=-1, keepdim=True, dtype=torch.float32)
    return update_NRC.div_(norm_NR1.clamp(min=1e-7))


@dataclass
class Stack:
    """Matrices of one shape and one parameter group on their way through one step.

    `content` is what of them this rank holds at the moment: its slice (n, R, C) of the gradients, then of the updates, then
    all updates (N, R, C), padded with zeros to a multiple of the ranks. It is valid once `work` has been waited for.
    """

    parameters: list[nn.Parameter]
    group: dict
    content: Tensor | None = None
    work: dist.Work | None = None

    def numel(self) -> int:
        return len(self.parameters) * self.parameters[0].numel()

    def reduce(self) -> None:
        """Start to average the gradients over the ranks, each rank receiving its slice."""
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
        """Start to bring the slices of all ranks together."""
        ranks = world_size()
        if ranks == 1:
            self.content = update_nRC
            return
        self.content = update_nRC.new_empty(ranks * len(update_nRC), *update_nRC.shape[1:])
        self.work = dist.all_gather_single(self.content, update_nRC, async_op=True)

    def apply(self) -> None:
        """Decay the weights and take the step, √max(1, rows/columns) times the learning rate."""
        lr, (rows, columns) = self.group["lr"], self.parameters[0].shape
        updates = self.wait()[: len(self.parameters)].to(self.parameters[0].dtype).unbind()
        torch._foreach_mul_(self.parameters, 1 - lr * self.group["weight_decay"])
        torch._foreach_add_(self.parameters, updates, alpha=-lr * max(1.0, rows / columns) ** 0.5)


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def stacks(groups: list[dict]) -> Iterator[Stack]:
    """Matrices of one group and shape, in as many stacks of about equal size as it takes to keep a rank's share below STACK."""
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

    `parameters` may be parameter groups with an lr, momentum and weight_decay of their own. Where torch.distributed is
    initialised, gradients are those of each rank and are averaged here; all ranks must make the same calls in the same
    order. A step is `launch`, whatever else there is to do meanwhile, `squared_norm` and `scale` if gradients are to be
    clipped, and `step`, which launches if nobody did. The state is this rank's slice of the momentum, kept at the first
    parameter of each stack.
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
        self.stacks: list[Stack] = []  # of the step under way, the largest first: it has the longest way

    @torch.no_grad()
    def launch(self) -> None:
        """Start to reduce the gradients, which have to be complete."""
        self.stacks = sorted(stacks(self.param_groups), key=Stack.numel, reverse=True)
        for stack in self.stacks:
            stack.reduce()

    @torch.no_grad()
    def squared_norm(self) -> Tensor:
        """Sum of the squares of all reduced gradients, on every rank. Comes after `launch`, and waits for it."""
        norms = torch._foreach_norm([stack.wait() for stack in self.stacks])
        total = torch.stack(norms).square().sum()
        if world_size() > 1:
            dist.all_reduce(total)
        return total

    @torch.no_grad()
    def scale(self, factor: float | Tensor) -> None:
        """Multiply the reduced gradients. Comes after `launch`, and waits for it."""
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
        """What momentum and orthogonalisation make of this rank's gradients, (n, R, C)."""
        gradient, momentum = stack.wait(), stack.group["momentum"]
        state = self.state[stack.parameters[0]]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        buffer = torch.add(gradient, state["momentum"], alpha=momentum, out=state["momentum"])
        nesterov = torch.add(gradient, buffer, alpha=momentum, out=gradient)
        if self.row_normalise:
            normalise_rows_(nesterov)
        return orthogonalise(nesterov, self.dtype, self.coefficients)
