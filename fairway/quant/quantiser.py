"""A whole network on grids: every large weight becomes integers and steps, everything else short floats.

In two parts, because a budget is met by trying several step sizes: `prepare` does what does not depend on the steps
(pruning, rotation, the factors of the Hessians), `quantise` the rest, matrices side by side on threads. Vectors, scalars
and stacks of per-channel scales (2-D but centred on one, not on zero) stay floats whatever their size.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fairway.quant import allocation, clips, low_rank, prune
from fairway.quant.config import Quant
from fairway.quant.gptq import Factor, Grid, error_energy, factorise, gptq, nearest
from fairway.quant.grids import entropy_bits, largest_integer, to_half
from fairway.quant.hessian import Curvature
from fairway.quant.matrix import QuantisedMatrix
from fairway.quant.roles import layer_of, role_of
from fairway.quant.rotation import block_of, rotate, rotate_hessian
from fairway.quant.rounding import LIMIT


@dataclass(frozen=True)
class Prepared:
    """A matrix ready for any step size; all on the CPU in float64. `weight_RC` is pruned and rotated, `steps_R` its steps.

    `free` steps follow no bits: integers reach to ±127 and no weight is clipped.
    """

    name: str
    role: str
    original_RC: Tensor
    weight_RC: Tensor
    kept_RC: np.ndarray | None  # bool; None where nothing is pruned
    rotation: int
    curvature: Curvature | None  # of the rotated weight; None where calibration saw nothing
    factor: Factor | None  # for GPTQ
    bits: int
    free: bool
    steps_R: Tensor


def prepare(state: dict[str, Tensor], curvatures: dict[str, Curvature], params: Quant, layers: int) -> list[Prepared]:
    """The matrices of a network, in the order of `state`. Without a curvature a matrix is rounded to nearest."""
    roles = {name: role_of(name, tensor) for name, tensor in state.items()}
    matrices = [
        _prepare(name, role, state[name], curvatures.get(name), params, params.bits_of(role, layer_of(name), layers))
        for name, role in roles.items()
        if role != "small"
    ]
    if params.allocation == "uniform":
        return matrices
    steps = allocation.by_sensitivity(
        {matrix.name: allocation.Rows(matrix.steps_R, _sensitivity(matrix), matrix.weight_RC.shape[1]) for matrix in matrices}
    )
    return [replace(matrix, steps_R=steps[matrix.name] / 2.0 ** (matrix.bits - params.bits)) for matrix in matrices]


def _prepare(name: str, role: str, tensor: Tensor, curvature: Curvature | None, params: Quant, bits: int) -> Prepared:
    original_RC = weight_RC = tensor.cpu().double()
    kept_RC, rotation, factor = None, 0, None
    if params.prune_fraction:
        pruned_RC = prune.smallest(weight_RC, params.prune_fraction)
        weight_RC, kept_RC = weight_RC.masked_fill(pruned_RC, 0.0), ~pruned_RC.numpy()
    if params.rotation == "hadamard":
        rotation = block_of(weight_RC.shape[1])
        weight_RC = rotate(weight_RC, rotation)
    if curvature is not None and curvature.columns_CC.any():
        columns_CC = rotate_hessian(curvature.columns_CC, rotation) if rotation else curvature.columns_CC
        if params.method == "gptq":
            factor = factorise(columns_CC, params.damping, params.column_order == "descending")
        curvature = Curvature(columns_CC.cpu(), curvature.rows_R.cpu())
    else:
        curvature = None
    # With free steps `bits` sets the mean step of all matrices, and what one has on top comes later.
    stepping_bits = bits if params.allocation == "uniform" else params.bits
    steps_R = clips.steps(weight_RC, params.clip_rule, stepping_bits, params.clip_of(role), params.per_tensor)
    if params.scale_floor:
        steps_R = clips.floored(steps_R, bits)
    free = params.allocation == "sensitivity" or params.target_bytes > 0
    return Prepared(name, role, original_RC, weight_RC, kept_RC, rotation, curvature, factor, bits, free, steps_R)


def _sensitivity(matrix: Prepared) -> Tensor | None:
    """What an error of one weight costs, by row (R,): twice the nats a token for its square."""
    if matrix.curvature is None or not matrix.curvature.rows_R.any():
        return None
    energy = matrix.factor.mean_energy if matrix.factor else matrix.curvature.columns_CC.diagonal().mean().item()
    return matrix.curvature.rows_R * energy


def quantise(
    matrices: list[Prepared], params: Quant, coarseness: float = 0.0, done: Callable[[str], None] = lambda name: None
) -> dict[str, QuantisedMatrix]:
    """Every matrix on its grid, its steps times 2^coarseness; `done` hears each name when it is finished."""

    def finished(matrix: Prepared) -> QuantisedMatrix:
        quantised = _quantise(matrix, params, coarseness)
        done(matrix.name)
        return quantised

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        quantised = dict(zip([matrix.name for matrix in matrices], pool.map(finished, matrices), strict=True))
    losses = {matrix.name: _error(matrix, quantised[matrix.name])[1] for matrix in matrices} if params.repair_matrices else {}
    worst = low_rank.choose(losses, params.repair_matrices)
    return quantised | {
        matrix.name: _repaired(matrix, quantised[matrix.name], params) for matrix in matrices if matrix.name in worst
    }


def _quantise(matrix: Prepared, params: Quant, coarseness: float) -> QuantisedMatrix:
    steps_R, limit = matrix.steps_R * 2.0**coarseness, largest_integer(matrix.bits)
    if matrix.free:
        reach = LIMIT / (1 + 2.0**-params.scale_mantissa_bits)  # steps that are rounded down must not clip
        steps_R, limit = torch.maximum(steps_R, matrix.weight_RC.abs().amax(dim=1) / reach), LIMIT
    if params.trellis:
        steps_R = steps_R / 2  # each of its two grids has every other value
    scales_R = to_half(steps_R, params.scale_mantissa_bits).numpy()
    grid, weight_RC = Grid(limit, params.trellis, params.rate_weight), matrix.weight_RC.numpy()
    if matrix.factor is None:
        integers_RC = nearest(weight_RC, scales_R, grid, matrix.kept_RC)
    else:
        integers_RC = gptq(weight_RC, matrix.factor, scales_R, grid, matrix.kept_RC, params.block)
    if params.prune_ones:
        integers_RC = prune.ones(torch.from_numpy(integers_RC), _saliency(matrix, scales_R), params.prune_ones).numpy()
    return QuantisedMatrix(integers_RC, scales_R, limit.bit_length() + 1, params.trellis, matrix.rotation)


def _saliency(matrix: Prepared, scales_R: np.ndarray) -> Tensor:
    """What an error of one step costs each weight, (R, C) or what broadcasts to it."""
    squared_R1 = torch.from_numpy(scales_R).double().square()[:, None]
    if matrix.curvature is None:
        return squared_R1
    return squared_R1 * matrix.curvature.rows_R[:, None] * matrix.curvature.columns_CC.diagonal()


def _repaired(matrix: Prepared, quantised: QuantisedMatrix, params: Quant) -> QuantisedMatrix:
    """The same matrix with the low-rank part of its error as a repair."""
    error_RC = matrix.original_RC - torch.from_numpy(quantised.weights()).double()
    hessian_CC = _unrotated(matrix).columns_CC if matrix.curvature else None
    left, right = low_rank.quantise_factors(*low_rank.factors(error_RC, hessian_CC, params.repair_rank), params.repair_bits)
    factors = [QuantisedMatrix(integers.numpy(), steps.numpy(), params.repair_bits) for integers, steps in (left, right)]
    return replace(quantised, repair=tuple(factors))


def _unrotated(matrix: Prepared) -> Curvature:
    """The curvature of the weight as it was: a rotation is its own inverse."""
    if not matrix.rotation:
        return matrix.curvature
    return replace(matrix.curvature, columns_CC=rotate_hessian(matrix.curvature.columns_CC, matrix.rotation))


def _error(matrix: Prepared, quantised: QuantisedMatrix) -> tuple[float, float]:
    """‖W − Ŵ‖ / ‖W‖, and the loss that it should cost in nats a token: −1 where calibration saw nothing."""
    delta_RC = matrix.original_RC - torch.from_numpy(quantised.weights()).double()
    relative = (delta_RC.norm() / matrix.original_RC.norm().clamp(min=torch.finfo(torch.float64).tiny)).item()
    if matrix.curvature is None:
        return relative, -1.0
    curvature = _unrotated(matrix)
    return relative, 0.5 * (curvature.rows_R * error_energy(delta_RC, curvature.columns_CC)).sum().item()


def describe(matrices: list[Prepared], quantised: dict[str, QuantisedMatrix], params: Quant) -> list[dict]:
    """One row a matrix, in order.

    name, role, method ("gptq", "gptq_lite", "rtn", or "fallback" where GPTQ had no Hessian that any damping could mend),
    rows, columns, bits (of the grid), damping (0 unless gptq), step (its mean logarithm, in standard deviations of the
    matrix), relative_error, estimated_loss (nats a token, −1 where calibration saw nothing) and entropy (bits a weight,
    without context).
    """
    table = []
    for matrix in matrices:
        found = quantised[matrix.name]
        relative_error, loss = _error(matrix, found)
        spacing = float(np.exp(np.log(found.scales.astype(np.float64)).mean())) * (2 if found.states else 1)
        table.append(
            {
                "name": matrix.name,
                "role": matrix.role,
                "method": "fallback" if params.method == "gptq" and matrix.factor is None else params.method,
                "rows": found.integers.shape[0],
                "columns": found.integers.shape[1],
                "bits": found.bits,
                "damping": matrix.factor.damping if matrix.factor else 0.0,
                "step": spacing / max(matrix.original_RC.square().mean().sqrt().item(), 1e-30),
                "relative_error": relative_error,
                "estimated_loss": loss,
                "entropy": entropy_bits(torch.from_numpy(found.integers)),
            }
        )
    return table


def summarise(table: list[dict]) -> dict:
    """The stage's metrics: entropy in bits a quantised weight, the estimated loss of all of them, matrices by method."""
    weights = sum(row["rows"] * row["columns"] for row in table)
    bits = sum(row["entropy"] * row["rows"] * row["columns"] for row in table)
    methods = [row["method"] for row in table]
    return {
        "bits_per_weight": bits / max(weights, 1),
        "estimated_loss": sum(max(row["estimated_loss"], 0.0) for row in table),
        "quantised_weights": weights,
        "gptq_matrices": methods.count("gptq"),
        "rtn_matrices": methods.count("rtn") + methods.count("gptq_lite"),
        "fallback_matrices": methods.count("fallback"),
    }


def small_tensors(state: dict[str, Tensor], mantissa_bits: int) -> dict[str, np.ndarray]:
    """The tensors that stay floats: fp16, rounded to `mantissa_bits` after the leading one."""
    return {
        name: shortened(tensor, mantissa_bits).cpu().numpy()
        for name, tensor in state.items()
        if role_of(name, tensor) == "small"
    }


def shortened(values: Tensor, mantissa_bits: int) -> Tensor:
    """Fp16 with so many bits after the leading one, to the nearest."""
    mantissa, exponent = torch.frexp(values.double())  # mantissa 0.5…1
    return torch.ldexp((mantissa * 2.0 ** (mantissa_bits + 1)).round() / 2.0 ** (mantissa_bits + 1), exponent).half()


def dequantise_state(matrices: dict[str, QuantisedMatrix], small: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Every tensor of the network in float32, by name."""
    restored = {name: torch.from_numpy(matrix.weights()) for name, matrix in matrices.items()}
    return restored | {name: torch.from_numpy(values.astype(np.float32)) for name, values in small.items()}
