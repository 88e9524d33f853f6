"""Pruning: which weights or integers become zero, because a coder spends fewer bits on zeros.

Before quantisation by magnitude (#861). After it, the integers ±1 with the least output error, scale² times the Hessian's
diagonal, become 0 (#1406 and its predecessors sort by scale² only).
"""

import torch
from torch import BoolTensor, Tensor


def smallest(weight_RC: Tensor, fraction: float) -> BoolTensor:
    """True (R, C) at the ⌊fraction · R · C⌋ smallest magnitudes of the matrix; ties in row-major order."""
    return _lowest(weight_RC.abs().flatten(), fraction).reshape(weight_RC.shape)


def ones(integers_RC: Tensor, saliency_RC: Tensor, fraction: float) -> Tensor:
    """The integers, int8 (R, C), with the ⌊fraction · count of ±1⌋ least salient ±1 set to 0; ties in row-major order.

    `saliency_RC` (or an array that broadcasts to it) is the loss of a change by one step: scale² · Hessian diagonal.
    """
    candidate_RC = integers_RC.abs() == 1
    pruned_RC = torch.zeros_like(candidate_RC)
    pruned_RC[candidate_RC] = _lowest(saliency_RC.expand_as(integers_RC)[candidate_RC], fraction)
    return integers_RC.masked_fill(pruned_RC, 0)


def _lowest(values_N: Tensor, fraction: float) -> BoolTensor:
    lowest_N = torch.zeros_like(values_N, dtype=torch.bool)
    lowest_N[values_N.argsort(stable=True)[: int(fraction * len(values_N))]] = True
    return lowest_N
