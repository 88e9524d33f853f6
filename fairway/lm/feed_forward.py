"""The feed-forward layer in its variants, and the router that lets only some tokens in. feed_forward_step.py mirrors both.

The published mixture of depths keeps the tokens with the highest scores of a sequence, so a token's path depends on
later ones, and its router has no gradient (#1185). Here a token goes through where its own score exceeds a learned
threshold, and the score scales what it gets: causal, trained, and the others cost nothing. Only the feed-forward is
routed: attention keeps every token, so streaming needs no other cache.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.lm.config import Model

SLACK = 1.25  # places in training per token of the capacity, so that few tokens find none


class FeedForward(nn.Module):
    """`activation` leaky_relu2: leaky(up)² (#549; ReLU² at slope 0). star_relu: α·leaky(up)² + β (#598, #861).

    square_glu: leaky(up)²·σ(gate) (#1185). swiglu: up·silu(gate) (Shazeer 2020, arXiv 2002.05202).
    """

    def __init__(self, model: Model):
        super().__init__()
        self.activation, self.slope = model.activation, model.leaky_slope
        self.up = nn.Linear(model.width, model.mlp_width, bias=False)
        self.down = nn.Linear(model.mlp_width, model.width, bias=False)
        if self.activation in ("swiglu", "square_glu"):
            self.gate = nn.Linear(model.width, model.mlp_width, bias=False)
        if self.activation == "star_relu":
            self.scale = nn.Parameter(torch.ones(model.mlp_width))
            self.shift = nn.Parameter(torch.zeros(model.mlp_width))

    def forward(self, x_BTD: Tensor) -> Tensor:
        up_BTF = self.up(x_BTD)
        if self.activation == "swiglu":
            return self.down(up_BTF * F.silu(self.gate(x_BTD)))
        hidden_BTF = F.leaky_relu(up_BTF, self.slope).square()
        if self.activation == "square_glu":
            hidden_BTF = hidden_BTF * torch.sigmoid(self.gate(x_BTD))
        elif self.activation == "star_relu":
            hidden_BTF = self.scale.to(up_BTF.dtype) * hidden_BTF + self.shift.to(up_BTF.dtype)
        return self.down(hidden_BTF)


class Router(nn.Module):
    """`capacity` is the part of the tokens that should pass.

    The threshold follows the quantile of the scores by the gradient of its pinball loss, so it needs no buffer and is
    the same on all ranks. In training the chosen tokens of a window are packed into a fixed number of places, first come,
    first served: shapes stay static, later tokens change nothing. Otherwise there are as many places as needed.
    """

    def __init__(self, width: int, capacity: float):
        super().__init__()
        self.capacity = capacity
        self.direction_D = nn.Parameter(torch.zeros(width))
        self.threshold = nn.Parameter(torch.tensor(0.0))

    def forward(self, x_BTD: Tensor, layer: nn.Module, losses: list[Tensor] | None) -> Tensor:
        """What the layer adds to each token (B, T, D): tanh(score − threshold) times its output for the chosen, 0 for others.

        The factor is 0 at the threshold, so that a score rounded to its other side changes nothing.
        """
        score_BT = (F.rms_norm(x_BTD.float(), x_BTD.shape[-1:]) * self.direction_D).sum(-1)  # autocast would round a product
        above_BT = score_BT > self.threshold
        if losses is not None:
            excess_BT = score_BT.detach() - self.threshold
            losses.append(torch.maximum((1 - self.capacity) * excess_BT, -self.capacity * excess_BT).mean())
        T = x_BTD.shape[1]
        places = min(T, math.ceil(SLACK * self.capacity * T)) if self.training else int(above_BT.sum(1).max())
        index_BK, filled_BK = pack(above_BT, places)
        index_BKD = index_BK[:, :, None].expand(-1, -1, x_BTD.shape[2])
        gate_BK = torch.tanh(score_BT - self.threshold.detach()).gather(1, index_BK) * filled_BK
        y_BKD = layer(x_BTD.gather(1, index_BKD))
        y_BKD = y_BKD * gate_BK.to(y_BKD.dtype)[:, :, None]
        return torch.zeros_like(x_BTD, dtype=y_BKD.dtype).scatter_add(1, index_BKD, y_BKD)


def pack(chosen_BT: Tensor, places: int) -> tuple[Tensor, Tensor]:
    """Positions (B, places) of the first chosen tokens of each row, and which of these places are filled."""
    B, T = chosen_BT.shape
    rank_BT = chosen_BT.cumsum(1) - 1
    place_BT = torch.where(chosen_BT & (rank_BT < places), rank_BT, places)  # the last place takes what finds none
    positions_BT = torch.arange(T, device=chosen_BT.device).expand(B, T)
    index_BK = torch.zeros(B, places + 1, dtype=torch.int64, device=chosen_BT.device).scatter(1, place_BT, positions_BT)
    count_B1 = chosen_BT.sum(1, keepdim=True)
    return index_BK[:, :places], torch.arange(places, device=chosen_BT.device) < count_B1
