"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): rounding column by column, each error made good by the columns to come.

Columns go from the largest Hessian diagonal to the smallest, as in #1406 §4.4; dead inputs get weight 0; damping is
added once (the published code adds it twice). The factor of the inverse comes from one Cholesky of the Hessian read
backwards: no inverse is formed and factored again, so only the Hessian itself can fail to be positive definite.

Shape letters: R rows (outputs), C columns (inputs).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fairway.quant.grids import dequantise, largest_integer, quantise

RETRIES = 3  # each with ten times the damping


@dataclass(frozen=True)
class Solution:
    """Integers of a grid (R, C), int8, and how they came about.

    `error` is `output_error`; `method` is "fallback" when no damping made the Hessian positive definite and the weights
    were rounded to nearest; `damping` is what was added, in means of the diagonal (nan for a fallback).
    """

    integers: Tensor
    error: float
    method: Literal["gptq", "rtn", "fallback"]
    damping: float


def gptq(weight_RC: Tensor, hessian_CC: Tensor, scales_R: Tensor, bits: int, damping: float, block: int) -> Solution:
    """Integers that keep the layer's outputs close on inputs with this Hessian. `block` (columns) is for speed only."""
    hessian_CC = hessian_CC.double()
    order_C = torch.argsort(hessian_CC.diagonal(), descending=True, stable=True)
    factor_CC, used = _damped_factor(hessian_CC[order_C][:, order_C], damping)
    if factor_CC is None:
        integers_RC = quantise(weight_RC, scales_R, bits)
    else:
        living_RC = weight_RC.double().masked_fill(hessian_CC.diagonal() == 0, 0.0)
        ordered_CR = living_RC[:, order_C].T.contiguous()
        integers_CR = _round_columns(ordered_CR, factor_CC, scales_R.double(), largest_integer(bits), block)
        integers_RC = torch.empty(weight_RC.shape, dtype=torch.int8, device=weight_RC.device)
        integers_RC[:, order_C] = integers_CR.T
    error = output_error(weight_RC, dequantise(integers_RC, scales_R), hessian_CC)
    return Solution(integers_RC, error, "fallback" if factor_CC is None else "gptq", used)


def output_error(weight_RC: Tensor, restored_RC: Tensor, hessian_CC: Tensor) -> float:
    """Energy of the error in the layer's outputs over the energy of the outputs: tr(ΔHΔᵀ) / tr(WHWᵀ)."""
    weight_RC, hessian_CC = weight_RC.double(), hessian_CC.double()
    delta_RC = weight_RC - restored_RC.double()
    energy = ((weight_RC @ hessian_CC) * weight_RC).sum().item()
    return ((delta_RC @ hessian_CC) * delta_RC).sum().item() / energy if energy else 0.0


def _damped_factor(hessian_CC: Tensor, damping: float) -> tuple[Tensor | None, float]:
    """The upper U with UᵀU = (H + damping·mean(diag H)·I)⁻¹, and the damping that it took; (None, nan) if none helped.

    With J the reversal of order, JHJ = LLᵀ gives H = MMᵀ for the upper M = JLJ, hence H⁻¹ = M⁻ᵀM⁻¹ and U = M⁻¹.
    """
    dead_C = hessian_CC.diagonal() == 0
    mean = hessian_CC.diagonal().sum() / (~dead_C).sum().clamp(min=1)
    identity_CC = torch.eye(len(dead_C), dtype=hessian_CC.dtype, device=hessian_CC.device)
    for _ in range(1 + RETRIES):
        damped_CC = hessian_CC + torch.diag(dead_C + damping * mean)
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC.flip(0, 1))
        if not failed:
            return torch.linalg.solve_triangular(lower_CC.flip(0, 1), identity_CC, upper=True), damping
        damping *= 10
    return None, float("nan")


def _round_columns(weight_CR: Tensor, factor_CC: Tensor, scales_R: Tensor, limit: int, block: int) -> Tensor:
    """Integers (C, R), int8; the weights are overwritten. Columns are stored as rows: each step reads one run of memory.

    Within a block every column corrects the rest of the block; columns after the block are corrected once, by a product.
    """
    integers_CR = torch.empty(weight_CR.shape, dtype=torch.int8, device=weight_CR.device)
    for start in range(0, len(weight_CR), block):
        part_BR = weight_CR[start : start + block]
        factor_BB = factor_CC[start : start + block, start : start + block]
        error_BR = torch.empty_like(part_BR)
        for column in range(len(part_BR)):
            nearest_R = (part_BR[column] / scales_R).round().clamp(-limit, limit)
            integers_CR[start + column] = nearest_R
            error_BR[column] = (part_BR[column] - nearest_R * scales_R) / factor_BB[column, column]
            part_BR[column + 1 :].addr_(factor_BB[column, column + 1 :], error_BR[column], alpha=-1)
        weight_CR[start + block :] -= factor_CC[start : start + block, start + block :].T @ error_BR
    return integers_CR
