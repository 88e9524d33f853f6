"""The network's side of the vocabulary tree: its log-odds at the nodes of each target's path (tree.py without torch)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.mixture.tree import FLOOR, depth


def path_log_odds(probabilities_TV: Tensor, targets_T: Tensor, leaves_V: Tensor) -> Tensor:
    """The log-odds of going right at each node on the targets' paths, float32 (T, depth); 0 beyond the end of a path.

    `leaves_V` are the tokens in the order of the leaves. Sums are in float64: a node's share may be tiny.
    """
    V = len(leaves_V)
    ranks_V = torch.empty_like(leaves_V).scatter_(0, leaves_V, torch.arange(V, device=leaves_V.device))
    below_TV1 = F.pad(probabilities_TV[:, leaves_V].double().cumsum(1), (1, 0))
    rank_T1 = ranks_V[targets_T][:, None]
    lo_T1, hi_T1 = torch.zeros_like(rank_T1), torch.full_like(rank_T1, V)
    odds = []
    for _ in range(depth(V)):
        middle_T1 = (lo_T1 + hi_T1) // 2
        left, center, right = (below_TV1.gather(1, place) for place in (lo_T1, middle_T1, hi_T1))
        here = torch.log((right - center).clamp(min=FLOOR)) - torch.log((center - left).clamp(min=FLOOR))
        odds.append(torch.where(hi_T1 - lo_T1 > 1, here, 0.0))
        goes_right = rank_T1 >= middle_T1
        lo_T1, hi_T1 = torch.where(goes_right, middle_T1, lo_T1), torch.where(goes_right, hi_T1, middle_T1)
    return torch.cat(odds, dim=1).float()
