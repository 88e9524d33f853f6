"""A whole network on grids: every large weight becomes integers and steps, everything else fp16.

Weights of linear layers with a Hessian go through GPTQ, the rest is rounded to nearest. Vectors, scalars and stacks of
per-channel scales (which are 2-D but centred on one, not on zero) stay fp16 whatever their size.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fairway.quant.config import Quant
from fairway.quant.gptq import Solution, gptq, output_error
from fairway.quant.grids import dequantise, entropy_bits, quantise, row_scales
from fairway.quant.roles import role_of


@dataclass(frozen=True)
class QuantisedMatrix:
    """Weights integers·scales: integers int8 (R, C) within ±(2^(bits−1) − 1), scales fp16 (R,)."""

    integers: Tensor
    scales: Tensor
    bits: int


def quantise_state(
    state: dict[str, Tensor], hessians: dict[str, Tensor], params: Quant, done: Callable[[str], None] = lambda name: None
) -> tuple[dict[str, QuantisedMatrix], dict[str, Tensor], list[dict]]:
    """Quantised matrices, fp16 tensors and one report row a matrix, all in the order of `state`.

    `hessians` (C, C) by name: matrices without one are rounded to nearest. `done` hears each name when it is finished.
    Rows hold name, role, method ("gptq", "rtn" or "fallback"), shape, bits, damping (nan unless gptq), relative_error
    (‖W − Ŵ‖ / ‖W‖), output_error (nan without a Hessian) and entropy (bits a weight).
    """
    matrices, small, report = {}, {}, []
    for name, tensor in state.items():
        role = role_of(name, tensor)
        if role == "small":
            small[name] = tensor.half()
        else:
            matrices[name], row = _quantise_matrix(tensor, role, hessians.get(name), params)
            report.append({"name": name, "role": role} | row)
        done(name)
    return matrices, small, report


def _quantise_matrix(weight_RC: Tensor, role: str, hessian_CC: Tensor | None, params: Quant) -> tuple[QuantisedMatrix, dict]:
    bits, clip = (params.embedding_bits, params.embedding_clip) if role == "embedding" else (params.bits, params.clip)
    scales_R = row_scales(weight_RC, bits, clip)
    if params.method == "gptq" and role == "matrix" and hessian_CC is not None:
        solution = gptq(weight_RC, hessian_CC, scales_R, bits, params.damping, params.block)
    else:
        solution = _nearest(weight_RC, hessian_CC, scales_R, bits)
    matrix = QuantisedMatrix(solution.integers, scales_R, bits)
    row = {
        "method": solution.method,
        "rows": weight_RC.shape[0],
        "columns": weight_RC.shape[1],
        "bits": bits,
        "damping": solution.damping,
        "relative_error": relative_error([(weight_RC, matrix)]),
        "output_error": solution.error,
        "entropy": entropy_bits(solution.integers),
    }
    return matrix, row


def _nearest(weight_RC: Tensor, hessian_CC: Tensor | None, scales_R: Tensor, bits: int) -> Solution:
    integers_RC = quantise(weight_RC, scales_R, bits)
    if hessian_CC is None:
        return Solution(integers_RC, float("nan"), "rtn", float("nan"))
    return Solution(integers_RC, output_error(weight_RC, dequantise(integers_RC, scales_R), hessian_CC), "rtn", float("nan"))


def relative_error(pairs: list[tuple[Tensor, QuantisedMatrix]]) -> float:
    """‖W − Ŵ‖ / ‖W‖ over all the weights together; 0 where there are none but zeros."""
    error = energy = 0.0
    for weight_RC, matrix in pairs:
        restored_RC = dequantise(matrix.integers, matrix.scales)
        error += (weight_RC.double() - restored_RC.double()).square().sum().item()
        energy += weight_RC.double().square().sum().item()
    return (error / energy) ** 0.5 if energy else 0.0


def summarise(state: dict[str, Tensor], matrices: dict[str, QuantisedMatrix], report: list[dict]) -> dict:
    """The stage's metrics: entropy in bits a weight (quantised weights only), error, and matrices by method."""
    weights = [row["rows"] * row["columns"] for row in report]
    bits = sum(row["entropy"] * count for row, count in zip(report, weights, strict=True))
    methods = [row["method"] for row in report]
    return {
        "bits_per_weight": bits / max(sum(weights), 1),
        "relative_error": relative_error([(state[name], matrix) for name, matrix in matrices.items()]),
        "quantised_weights": sum(weights),
        "gptq_matrices": methods.count("gptq"),
        "rtn_matrices": methods.count("rtn"),
        "fallback_matrices": methods.count("fallback"),
    }


def dequantise_state(matrices: dict[str, QuantisedMatrix], small: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the network in float32, by name."""
    restored = {name: dequantise(matrix.integers, matrix.scales) for name, matrix in matrices.items()}
    return restored | {name: tensor.float() for name, tensor in small.items()}
