"""GPTQ (Frantar et al. 2022, arXiv 2210.17323): round column by column, and let later columns compensate each error.

Columns are processed from the largest Hessian diagonal to the smallest, as in #1406 §4.4; inputs that are always zero get
weight 0; damping is added once (the published code adds it twice). The factor of the inverse comes from one Cholesky
decomposition of the Hessian in reverse order: no inverse is formed and factored again, so only the Hessian itself can fail to
be positive definite. Factors are kept, because meeting a byte budget rounds the same matrix several times.

Shape letters: R rows (outputs), C columns (inputs).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fairway.quant.rounding import gaussian_bits, round_block, width_classes
from fairway.quant.trellis import NEXT_STATE

RETRIES = 3  # each with ten times the damping
PLAIN = np.zeros((1, 2), np.uint8)  # transitions of a plain grid: one state
# Price of one bit in squared steps of `scales`, at this step: −dD/dR = 2 ln 2 · D, where D = 1/12 for the plain grid; a
# trellis has twice the spacing and 1.1 dB less error.
PRICE = {0: 2 * np.log(2) / 12, 4: 2 * np.log(2) * 0.265, 8: 2 * np.log(2) * 0.259}


@dataclass(frozen=True)
class Grid:
    """The values of a weight: integers within ±limit, on a trellis of `states` (0: none); `rate_weight` multiplies bits."""

    limit: int
    states: int = 0
    rate_weight: float = 0.0


@dataclass(frozen=True)
class Factor:
    """The upper triangular U with UᵀU = H⁻¹, columns in the order of rounding, numpy float64.

    `damping` is the amount that made H positive definite, in means of its diagonal. `active_C`: inputs not always zero.
    """

    upper_CC: np.ndarray
    order_C: np.ndarray
    active_C: np.ndarray
    damping: float

    @property
    def energy_C(self) -> np.ndarray:
        """Cost of a squared error in each column after later columns have compensated what they can: 1 / U_jj²."""
        return 1 / self.upper_CC.diagonal() ** 2

    @property
    def mean_energy(self) -> float:
        """Mean over the active columns: errors of the others cost nothing."""
        return float(self.energy_C[self.active_C[self.order_C]].mean())


def factorise(hessian_CC: Tensor, damping: float, ordered: bool = True) -> Factor | None:
    """The factor of a Hessian on any device; None when no damping makes it positive definite.

    If J reverses the order and JHJ = LLᵀ, then H = MMᵀ with the upper triangular M = JLJ, so H⁻¹ = M⁻ᵀM⁻¹ and U = M⁻¹.
    `ordered` rounds columns by descending diagonal.
    """
    hessian_CC = hessian_CC.double()
    diagonal_C = hessian_CC.diagonal()
    order_C = torch.argsort(diagonal_C, descending=True, stable=True) if ordered else torch.arange(len(diagonal_C))
    order_C = order_C.to(hessian_CC.device)
    dead_C = diagonal_C[order_C] == 0
    mean = diagonal_C.sum() / (~dead_C).sum().clamp(min=1)
    for _ in range(1 + RETRIES):
        damped_CC = hessian_CC[order_C][:, order_C] + torch.diag(dead_C + damping * mean)
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC.flip(0, 1))
        if not failed:
            identity_CC = torch.eye(len(dead_C), dtype=torch.float64, device=hessian_CC.device)
            upper_CC = torch.linalg.solve_triangular(lower_CC.flip(0, 1), identity_CC, upper=True)
            return Factor(upper_CC.cpu().numpy(), order_C.cpu().numpy(), (diagonal_C != 0).cpu().numpy(), damping)
        damping *= 10
    return None


def gptq(
    weight_RC: np.ndarray, factor: Factor, scales_R: np.ndarray, grid: Grid, kept_RC: np.ndarray | None = None, block: int = 128
) -> np.ndarray:
    """Integers int8 (R, C) that keep the layer's outputs close on inputs with this Hessian.

    Where `kept_RC` is false the integer is 0, and later columns compensate that error too (SparseGPT, Frantar & Alistarh
    2023, arXiv 2301.00774). `block`, in columns, matters for speed only.
    """
    active_RC = np.where(factor.active_C, weight_RC.astype(np.float64), 0.0)
    kept_RC = np.ones(weight_RC.shape, bool) if kept_RC is None else kept_RC
    weight_CR = np.ascontiguousarray(active_RC[:, factor.order_C].T)
    kept_CR = np.ascontiguousarray(kept_RC[:, factor.order_C].T)
    price_C = grid.rate_weight * PRICE[grid.states] * factor.mean_energy / factor.energy_C
    scale_R = scales_R.astype(np.float64)
    class_R = width_classes(np.sqrt(np.square(active_RC).mean(axis=1)) / scale_R)
    rules = scale_R, gaussian_bits(grid.states), class_R, grid.limit, NEXT_STATE.get(grid.states, PLAIN)
    integers_CR = np.empty(weight_CR.shape, np.int8)
    for start in range(0, len(weight_CR), block):
        part = slice(start, min(start + block, len(weight_CR)))
        error_BR = np.empty_like(weight_CR[part])
        upper_BB = np.ascontiguousarray(factor.upper_CC[part, part])
        round_block(weight_CR[part], kept_CR[part], upper_BB, price_C[part], *rules, integers_CR[part], error_BR)
        weight_CR[part.stop :] -= factor.upper_CC[part, part.stop :].T @ error_BR
    integers_RC = np.empty(weight_RC.shape, np.int8)
    integers_RC[:, factor.order_C] = integers_CR.T
    return integers_RC


def nearest(weight_RC: np.ndarray, scales_R: np.ndarray, grid: Grid, kept_RC: np.ndarray | None = None) -> np.ndarray:
    """Integers int8 (R, C) of least error without compensation: each weight (on a trellis, each column) on its own."""
    C = weight_RC.shape[1]
    return gptq(weight_RC, Factor(np.eye(C), np.arange(C), np.ones(C, bool), 0.0), scales_R, grid, kept_RC, block=C)


def error_energy(delta_RC: Tensor, hessian_CC: Tensor) -> Tensor:
    """Mean squared error of each output that an error Δ of the weights causes, E (Δx)², float64 (R,)."""
    delta_RC = delta_RC.double()
    return ((delta_RC @ hessian_CC.double()) * delta_RC).sum(dim=1)
