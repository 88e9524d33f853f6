"""Quantisation-aware training: rounding in the forward pass, two penalties, and pruning.

All of it acts on every weight that `quant` will round, chosen by quant's own rule and with quant's own steps: in published
code rounding missed 96 % of the weights (#549, #885, #1185) and assumed another grid than the export's, and #1185's penalty
was a billion times too small. The gradient passes through rounding unchanged (straight-through estimator, Bengio et al.
2013, arXiv 1308.3432). `parameters` may hold more names than `roles`; only those of `roles` are used.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fairway.lm.parameters import role_of
from fairway.quant.clips import steps
from fairway.quant.grids import SMALLEST_STEP, dequantise, largest_integer, quantise, to_half
from fairway.train.config import Qat


def grid_weights(model: nn.Module) -> dict[str, str]:
    """Names of the parameters that `quant` puts on a grid → their roles."""
    roles = {name: role_of(name, parameter.shape) for name, parameter in model.named_parameters()}
    return {name: role for name, role in roles.items() if role != "fp16"}


def grid_of(role: str, qat: Qat) -> tuple[int, float]:  # bits, clip
    return (qat.embedding_bits, qat.embedding_clip) if role == "embedding" else (qat.bits, qat.clip)


def differentiable_step(weight_RC: Tensor, bits: int, clip: float) -> Tensor:
    """`clips.steps` of deviations, (R, 1), differentiable; a row of zeros has no gradient."""
    deviation_R1 = torch.linalg.vector_norm(weight_RC, dim=1, keepdim=True) / weight_RC.shape[1] ** 0.5
    return (clip / largest_integer(bits) * deviation_R1).clamp(min=SMALLEST_STEP)


def straight_through(weight_RC: Tensor, bits: int, clip: float) -> Tensor:
    """The weights that rounding to nearest exports, to the bit, with the gradient of the unrounded weights."""
    with torch.no_grad():
        scales_R = to_half(steps(weight_RC, "deviation", bits, clip))
        shift_RC = dequantise(quantise(weight_RC, scales_R, bits), scales_R) - weight_RC
    return weight_RC + shift_RC  # exact: a step has 11 significant bits, so differences of up to 2^13 steps lose none


@contextmanager
def on_grid(parameters: dict[str, nn.Parameter], roles: dict[str, str], qat: Qat) -> Iterator[None]:
    """Inside the block the parameters of `roles` lie on their grids; after it they are as before.

    Gradients taken inside and applied after it are the straight-through estimate. It costs two copies per step, and the
    compiled forward pass does not change.
    """
    weights = [parameters[name] for name in roles]
    with torch.no_grad():
        kept = [weight.clone() for weight in weights]
        rounded = [straight_through(weight, *grid_of(role, qat)) for weight, role in zip(weights, roles.values(), strict=True)]
        torch._foreach_copy_(weights, rounded)
    try:
        yield
    finally:
        with torch.no_grad():
            torch._foreach_copy_(weights, kept)


def entropy_penalty(parameters: dict[str, Tensor], roles: dict[str, str], qat: Qat) -> Tensor:
    """Squared distance to the nearest integer, in steps: Σ over all rows of its mean over columns (#885's "entropy").

    Rounding has no gradient, the step has one. Evenly spread weights cost 1/12 per row. In networks of the laptop's size, a
    few hundred steps into training, a factor of 5e-5 makes 3 to 8 % of the cross-entropy's gradient norm.
    """
    total = 0.0
    for weight_RC, bits, clip in _tall_matrices(parameters, roles, qat):
        position_RC = weight_RC / differentiable_step(weight_RC, bits, clip)
        total = total + (position_RC - position_RC.detach().round()).square().mean(dim=1).sum()
    return total


def crown_penalty(parameters: dict[str, Tensor], roles: dict[str, str], qat: Qat) -> Tensor:
    """CROWN-Q: Σ over all rows of mean(w²) · step² / 12, the variance of rounding where w² stands for the curvature.

    The sum over rows is #690's form; #1185 took the mean over all weights, too small to change a last bit. In the same
    networks a factor of 5 makes 3 to 5 % of the cross-entropy's gradient norm, which grows with the cube of the weights.
    """
    total = 0.0
    for weight_RC, bits, clip in _tall_matrices(parameters, roles, qat):
        step_R = differentiable_step(weight_RC, bits, clip).squeeze(1)
        total = total + (weight_RC.square().mean(dim=1) * step_R.square() / 12).sum()
    return total


def _tall_matrices(parameters: dict[str, Tensor], roles: dict[str, str], qat: Qat) -> Iterator[tuple[Tensor, int, float]]:
    """All rows of one length on one kind of grid as one matrix, with its bits and clip: few, large kernels."""
    weights = defaultdict(list)
    for name, role in roles.items():
        weights[*grid_of(role, qat), parameters[name].shape[1]].append(parameters[name])
    for (bits, clip, _), group in weights.items():
        yield torch.cat(group), bits, clip


def prune_target(done: float, qat: Qat) -> float:
    """The fraction of each matrix that is zero when the fraction `done` of training is over.

    0 until `prune_start`, then f·(1 − (1 − x)³), fast at first (Zhu & Gupta 2017, arXiv 1710.01878).
    """
    since_start = max(0.0, done - qat.prune_start) / (1 - qat.prune_start)
    return qat.prune_fraction * (1 - (1 - since_start) ** 3)


@torch.no_grad()
def prune_(weights: Iterable[Tensor], fraction: float) -> None:
    """Zero in each tensor the ⌊fraction · n⌋ of its n weights smallest in magnitude, and ties with the last of these."""
    for weight in weights:
        count = int(fraction * weight.numel())
        if count:
            magnitude = weight.abs()
            weight.masked_fill_(magnitude <= magnitude.flatten().kthvalue(count).values, 0.0)
