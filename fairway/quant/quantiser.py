"""Quantise a whole network: every large weight becomes integers and steps, every other tensor fp16.

In two parts, because meeting a byte budget means trying several step sizes: `prepare` does what does not depend on the steps
(pruning, rotation, factors of the Hessians), `quantise` the rest, in one thread per matrix. What stays fp16 says
lm/parameters.py.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fairway.lm.parameters import layer_of, role_of
from fairway.quant import allocation, clips, low_rank, prune
from fairway.quant.config import Quant
from fairway.quant.gptq import Factor, Grid, error_energy, factorise, gptq, nearest
from fairway.quant.grids import entropy_bits, largest_integer, shortened, to_half
from fairway.quant.hessian import Curvature
from fairway.quant.matrix import QuantisedMatrix
from fairway.quant.rotation import block_size, rotate, rotate_hessian
from fairway.quant.rounding import LIMIT


@dataclass(frozen=True)
class Prepared:
    """A matrix ready for any step size; on the CPU in float64. `weight_RC` is pruned and rotated, `steps_R` are its steps.

    `unclipped` matrices use integers up to ±127 whatever their `bits`, and steps large enough that no weight is clipped.
    """

    name: str
    role: str
    original_RC: Tensor
    weight_RC: Tensor
    kept_RC: np.ndarray | None  # bool; None where nothing is pruned
    rotation: int
    curvature: Curvature | None  # of the rotated weight; None where calibration measured nothing
    factor: Factor | None  # for GPTQ
    bits: int
    unclipped: bool
    steps_R: Tensor


def prepare(state: dict[str, Tensor], curvatures: dict[str, Curvature], params: Quant, layers: int) -> list[Prepared]:
    """The matrices of a network, in the order of `state`. Matrices without curvature will be rounded to nearest."""
    roles = {name: role_of(name, tensor.shape) for name, tensor in state.items()}
    matrices = [
        _prepare(name, role, state[name], curvatures.get(name), params, params.bits_of(role, layer_of(name), layers))
        for name, role in roles.items()
        if role != "fp16"
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
        rotation = block_size(weight_RC.shape[1])
        weight_RC = rotate(weight_RC, rotation)
    if curvature is not None and curvature.hessian_CC.any():
        hessian_CC = rotate_hessian(curvature.hessian_CC, rotation) if rotation else curvature.hessian_CC
        if params.method == "gptq":
            factor = factorise(hessian_CC, params.damping, params.column_order == "descending")
        curvature = Curvature(hessian_CC.cpu(), curvature.fisher_R.cpu())
    else:
        curvature = None
    # Allocation by sensitivity starts from params.bits for all matrices; `prepare` applies extra bits to its result.
    stepping_bits = bits if params.allocation == "uniform" else params.bits
    steps_R = clips.steps(weight_RC, params.clip_rule, stepping_bits, params.clip_of(role), params.per_tensor)
    if params.scale_floor:  # the published int5 and int6 code: all rows with a clip below 1, nearly all, get the same step
        steps_R = steps_R.clamp(min=1 / largest_integer(bits))
    unclipped = params.allocation == "sensitivity" or params.target_bytes > 0
    return Prepared(name, role, original_RC, weight_RC, kept_RC, rotation, curvature, factor, bits, unclipped, steps_R)


def _sensitivity(matrix: Prepared) -> Tensor | None:
    """Cost of rounding errors in each row (R,): twice the nats per token for a squared error of one weight."""
    if matrix.curvature is None or not matrix.curvature.fisher_R.any():
        return None
    energy = matrix.factor.mean_energy if matrix.factor else matrix.curvature.hessian_CC.diagonal().mean().item()
    return matrix.curvature.fisher_R * energy


def quantise(
    matrices: list[Prepared], params: Quant, log2_step_scale: float = 0.0, done: Callable[[str], None] = lambda name: None
) -> dict[str, QuantisedMatrix]:
    """Every matrix on its grid, its steps times 2^log2_step_scale; calls `done` with each name when it is finished."""

    def finished(matrix: Prepared) -> QuantisedMatrix:
        quantised = _quantise(matrix, params, log2_step_scale)
        done(matrix.name)
        return quantised

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        quantised = dict(zip([matrix.name for matrix in matrices], pool.map(finished, matrices), strict=True))
    if not params.repair_matrices:
        return quantised
    worst = sorted(matrices, key=lambda matrix: _error(matrix, quantised[matrix.name])[1], reverse=True)
    corrected = worst[: params.repair_matrices]
    return quantised | {matrix.name: _corrected(matrix, quantised[matrix.name], params) for matrix in corrected}


def _quantise(matrix: Prepared, params: Quant, log2_step_scale: float) -> QuantisedMatrix:
    steps_R, limit = matrix.steps_R * 2.0**log2_step_scale, largest_integer(matrix.bits)
    if matrix.unclipped:
        reach = LIMIT / (1 + 2.0**-params.scale_mantissa_bits)  # steps that are rounded down must not clip
        steps_R, limit = torch.maximum(steps_R, matrix.weight_RC.abs().amax(dim=1) / reach), LIMIT
    if params.trellis:
        steps_R = steps_R / 2  # each of the trellis' two grids has every other value
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
    """Cost of an error of one step in each weight, (R, C) or an array that broadcasts to it."""
    squared_R1 = torch.from_numpy(scales_R).double().square()[:, None]
    if matrix.curvature is None:
        return squared_R1
    return squared_R1 * matrix.curvature.fisher_R[:, None] * matrix.curvature.hessian_CC.diagonal()


def _corrected(matrix: Prepared, quantised: QuantisedMatrix, params: Quant) -> QuantisedMatrix:
    """The same matrix with the low-rank correction of its error."""
    error_RC = matrix.original_RC - torch.from_numpy(quantised.weights()).double()
    hessian_CC = _unrotated(matrix).hessian_CC if matrix.curvature else None
    left, right = low_rank.quantise_factors(*low_rank.factors(error_RC, hessian_CC, params.repair_rank), params.repair_bits)
    factors = [QuantisedMatrix(integers.numpy(), steps.numpy(), params.repair_bits) for integers, steps in (left, right)]
    return replace(quantised, correction=tuple(factors))


def _unrotated(matrix: Prepared) -> Curvature:
    """The curvature of the weight before rotation; the rotation is its own inverse."""
    if not matrix.rotation:
        return matrix.curvature
    return replace(matrix.curvature, hessian_CC=rotate_hessian(matrix.curvature.hessian_CC, matrix.rotation))


def _error(matrix: Prepared, quantised: QuantisedMatrix) -> tuple[float, float]:
    """‖W − Ŵ‖ / ‖W‖, and the estimated loss in nats per token: −1 where calibration measured nothing."""
    delta_RC = matrix.original_RC - torch.from_numpy(quantised.weights()).double()
    relative = (delta_RC.norm() / matrix.original_RC.norm().clamp(min=torch.finfo(torch.float64).tiny)).item()
    if matrix.curvature is None:
        return relative, -1.0
    curvature = _unrotated(matrix)
    return relative, 0.5 * (curvature.fisher_R * error_energy(delta_RC, curvature.hessian_CC)).sum().item()


def describe(matrices: list[Prepared], quantised: dict[str, QuantisedMatrix], params: Quant) -> list[dict]:
    """One row per matrix, in order.

    method: "fallback" where GPTQ had no Hessian or none that damping made positive definite. bits: that the integers need.
    step: geometric mean, in standard deviations of the matrix. estimated_loss: nats per token, −1 where calibration measured
    nothing. entropy: order-0, bits per weight.
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
                "bits": found.integer_bits,
                "damping": matrix.factor.damping if matrix.factor else 0.0,
                "step": spacing / max(matrix.original_RC.square().mean().sqrt().item(), 1e-30),
                "relative_error": relative_error,
                "estimated_loss": loss,
                "entropy": entropy_bits(torch.from_numpy(found.integers)),
            }
        )
    return table


def summarise(table: list[dict]) -> dict:
    """The stage's metrics: entropy in bits per quantised weight, total estimated loss, number of matrices by method."""
    weights = sum(row["rows"] * row["columns"] for row in table)
    bits = sum(row["entropy"] * row["rows"] * row["columns"] for row in table)
    methods = [row["method"] for row in table]
    return {
        "entropy_bits_per_weight": bits / max(weights, 1),
        "estimated_loss": sum(max(row["estimated_loss"], 0.0) for row in table),
        "quantised_weights": weights,
        "gptq_matrices": methods.count("gptq"),
        "rtn_matrices": methods.count("rtn") + methods.count("gptq_lite"),
        "fallback_matrices": methods.count("fallback"),
    }


def fp16_tensors(state: dict[str, Tensor], mantissa_bits: int) -> dict[str, np.ndarray]:
    """The tensors that are not quantised, as fp16 rounded to `mantissa_bits` after the leading one."""
    return {
        name: shortened(tensor, mantissa_bits).cpu().numpy()
        for name, tensor in state.items()
        if role_of(name, tensor.shape) == "fp16"
    }
