"""Pruning: which weights or integers become zero, because a coder spends less on zeros.

By magnitude before quantising (#861), or after it: ±1 are the integers whose loss costs least, and among them those
go whose output error, scale² times the Hessian's diagonal, is least (#1406's lineage sorts by scale² alone).
"""

import torch
from torch import BoolTensor, Tensor


def smallest(weight_RC: Tensor, fraction: float) -> BoolTensor:
    """True (R, C) at the ⌊fraction · R · C⌋ smallest magnitudes of the matrix; of equal ones the first in order of rows."""
    return _lowest(weight_RC.abs().flatten(), fraction).reshape(weight_RC.shape)


def ones(integers_RC: Tensor, saliency_RC: Tensor, fraction: float) -> Tensor:
    """The integers, int8 (R, C), with the ⌊fraction · count of ±1⌋ least salient ±1 set to 0; of equal ones the first.

    `saliency_RC` (or what broadcasts to it) is the loss that a change by one step costs: scale² · Hessian diagonal.
    """
    candidate_RC = integers_RC.abs() == 1
    pruned_RC = torch.zeros_like(candidate_RC)
    pruned_RC[candidate_RC] = _lowest(saliency_RC.expand_as(integers_RC)[candidate_RC], fraction)
    return integers_RC.masked_fill(pruned_RC, 0)


def _lowest(values_N: Tensor, fraction: float) -> BoolTensor:
    lowest_N = torch.zeros_like(values_N, dtype=torch.bool)
    lowest_N[values_N.argsort(stable=True)[: int(fraction * len(values_N))]] = True
    return lowest_N
