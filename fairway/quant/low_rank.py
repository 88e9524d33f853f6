"""Low-rank correction of quantisation errors (LQER, Zhang et al. 2024, arXiv 2402.02446).

The few matrices with the largest errors E get the best rank-k approximation of E added: best in the output error tr(E H Eᵀ),
not in the error of the weights. With E·√H = U S Vᵀ it is U_k U_kᵀ E, a projection, so that no Hessian has to be inverted or
damped, and inputs that are always zero do no harm. Of the output error of 14 matrices of the default run, rounded to nearest
at 6 bits, rank 4 leaves 0.72 on average; with factors of 4 bits 0.73, of 3 bits 0.76, of 2 bits 0.82; without H 0.94.
"""

import torch
from torch import Tensor

from fairway.quant import clips
from fairway.quant.grids import quantise, to_half


def factors(error_RC: Tensor, hessian_CC: Tensor | None, rank: int) -> tuple[Tensor, Tensor]:
    """left (R, k) and right (k, C), float64, k = min(rank, R, C), with error ≈ left @ right, the largest component first.

    Best in tr(E H Eᵀ), without a Hessian in the squared error of the weights. Both factors of a component have equal norm.
    """
    error_RC = error_RC.double()
    weighted_RC = error_RC
    if hessian_CC is not None:  # times S with S·Sᵀ = H
        values_C, vectors_CC = torch.linalg.eigh(hessian_CC.double())
        weighted_RC = error_RC @ (vectors_CC * values_C.clamp(min=0).sqrt())
    left_Rk = torch.linalg.svd(weighted_RC, full_matrices=False).U[:, :rank]
    right_kC = left_Rk.T @ error_RC
    balance_k = right_kC.norm(dim=1).sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    return left_Rk * balance_k, right_kC / balance_k[:, None]


def quantise_factors(left_Rk: Tensor, right_kC: Tensor, bits: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(integers int8, steps fp16) of leftᵀ (k, R) and of right (k, C).

    The left factor is transposed because steps belong to rows: k steps suffice instead of R, whose bytes are better spent on
    one more bit per integer (measured at 2 bits: 0.82 of the output error left, 0.80 with R steps, 0.76 at 3 bits).
    """
    return _on_grid(left_Rk.T, bits), _on_grid(right_kC, bits)


def _on_grid(factor_kN: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    steps_k = to_half(clips.steps(factor_kN, "mse", bits, deviations=0.0), mantissa_bits=10)
    return quantise(factor_kN, steps_k, bits), steps_k
