"""Grouped-query attention with the challenge's additions, and its rolling key/value cache. attention_step.py mirrors it.

Unusual: q and k are RMS-normalized per head and q has a learned gain per head; rotary embedding turns only the first
`rope_dims` of a head's dimensions; values may get a learned embedding of their token and a part of the first layer's
values; exclusive self-attention (XSA) removes from each head's output its part along the token's own value, and a gate
scales the rest.

Shape letters: B batch, T time, S keys, D width, H query heads, G key/value heads, N head width, R half of rope_dims.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from fairway.lm.config import Model

FLEX_QUERIES = 128  # a block of flex_attention's mask: the dense kernel takes fewer queries on a GPU
PIECE = 32  # smallest number of queries that the dense kernel gets at once


@dataclass(frozen=True)
class Band:
    """Which of the S available keys the queries of a chunk see while streaming: made once, the same in all layers.

    A token sees the last `context` positions, itself included, and where documents are kept apart none before its own.
    """

    first_BT: Tensor  # index of the first key that each query sees, at most context − 1 before its own
    keys: int  # S; the last T are the chunk's own
    context: int

    def attention(self, q_BHTN: Tensor, k_BGSN: Tensor, v_BGSN: Tensor) -> Tensor:
        """Attention within the band (B, H, T, N): on a GPU one kernel that skips masked blocks, elsewhere piece by piece."""
        if q_BHTN.is_cuda and q_BHTN.shape[2] >= FLEX_QUERIES:
            return fused_flex_attention()(q_BHTN, k_BGSN, v_BGSN, block_mask=self.block_mask, enable_gqa=True)
        pieces = [
            F.scaled_dot_product_attention(
                q_BHTN[:, :, queries], k_BGSN[:, :, keys], v_BGSN[:, :, keys], attn_mask=mask_B1TS, enable_gqa=True
            )
            for queries, keys, mask_B1TS in self.pieces
        ]
        return torch.cat(pieces, dim=2)

    @functools.cached_property
    def rule(self) -> Callable[..., Tensor]:
        """A query sees the keys from the first of its document and context to its own; a mask_mod of flex_attention."""
        first_BT, own_T = self.first_BT, torch.arange(self.keys, device=self.first_BT.device)[-self.first_BT.shape[1] :]
        return lambda b, h, q, k: (first_BT[b, q] <= k) & (k <= own_T[q])

    @functools.cached_property
    def block_mask(self) -> BlockMask:
        B, T = self.first_BT.shape
        return create_block_mask(self.rule, B, None, T, self.keys, device=self.first_BT.device)

    @functools.cached_property
    def pieces(self) -> list[tuple[slice, slice, Tensor]]:
        """(queries, keys that any of them sees, mask between them): together the band's area, not T × S.

        Longer pieces waste more of their corners, shorter ones more calls: on a CPU a quarter of the context is best.
        """
        B, T = self.first_BT.shape
        length = max(PIECE, self.context // 4)
        row_B111 = torch.arange(B, device=self.first_BT.device)[:, None, None, None]
        pieces = []
        for start in range(0, T, length):
            end = min(start + length, T)
            keys = slice(max(0, self.keys - T + start - self.context + 1), self.keys - T + end)
            query_T1 = torch.arange(start, end, device=self.first_BT.device)[:, None]
            key_S = torch.arange(keys.start, keys.stop, device=self.first_BT.device)
            pieces.append((slice(start, end), keys, self.rule(row_B111, None, query_T1, key_S)))
        return pieces


@functools.cache
def fused_flex_attention() -> Callable[..., Tensor]:
    """It is one kernel only when compiled; eager, it stores all T × S scores."""
    return torch.compile(flex_attention)


@dataclass
class KeyValueCache:
    """Rotated keys and values of the last `context` − 1 positions of a text, one buffer per pass through a layer.

    A layer that runs twice (depth recurrence) sees other inputs the second time, so it has two buffers. A buffer is
    written from left to right and its end moved to the front when it is full, which is rare: a step copies its own
    position and reads the others in place. The rows of a batch are texts at the same position.
    """

    context: int
    reset_documents: bool = False  # no query sees keys of another document
    position: int = 0  # of the next token in the text
    document_B1: Tensor | int = 0  # position at which the document of each row started
    buffers_2BGCN: list[Tensor] = field(default_factory=list)  # keys and values, capacity C
    ends: list[int] = field(default_factory=list)  # positions written, of each buffer

    def advance(self, starts_BT: Tensor) -> Band:
        """Move on by a chunk, given where documents start in it, and return what it sees."""
        B, T = starts_BT.shape
        own_BT = torch.arange(self.position, self.position + T, device=starts_BT.device).expand(B, T)
        first_BT = own_BT - (self.context - 1)
        if self.reset_documents:
            document_BT = torch.where(starts_BT, own_BT, self.document_B1).cummax(dim=1).values
            self.document_B1 = document_BT[:, -1:]
            first_BT = torch.maximum(first_BT, document_BT)
        oldest = max(0, self.position - self.context + 1)
        self.position += T
        return Band(first_BT - oldest, self.position - oldest, self.context)

    def extend(self, pass_index: int, k_BGTN: Tensor, v_BGTN: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values to attend to: those in the cache, then the new ones. Views, valid until the next call."""
        B, G, T, N = k_BGTN.shape
        if pass_index == len(self.ends):
            self.buffers_2BGCN.append(k_BGTN.new_empty(2, B, G, 4 * self.context + T, N))
            self.ends.append(0)
        buffer, end = self.buffers_2BGCN[pass_index], self.ends[pass_index]
        if end + T > buffer.shape[3]:
            kept = buffer[:, :, :, max(0, end - self.context + 1) : end].clone()
            end = kept.shape[3]
            if end + T > buffer.shape[3]:
                buffer = self.buffers_2BGCN[pass_index] = buffer.new_empty(2, B, G, 4 * self.context + T, N)
            buffer[:, :, :, :end] = kept
        buffer[0, :, :, end : end + T] = k_BGTN
        buffer[1, :, :, end : end + T] = v_BGTN
        self.ends[pass_index] = end + T
        k_BGSN, v_BGSN = buffer[:, :, :, max(0, end - self.context + 1) : end + T]
        return k_BGSN, v_BGSN


def rotary_tables(position: int, length: int, dims: int, base: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, (T, R) each, in float32 from float64 angles: a stream may run for millions of tokens."""
    frequency_R = base ** (-torch.arange(0, dims, 2, dtype=torch.float64, device=device) / dims)
    angle_TR = torch.arange(position, position + length, dtype=torch.float64, device=device)[:, None] * frequency_R
    return angle_TR.cos().float(), angle_TR.sin().float()


def rotate(x_BHTN: Tensor, cos_TR: Tensor, sin_TR: Tensor) -> Tensor:
    """Turn dimension i with i + R, for i < R; the dimensions from 2R on stay (partial RoPE, half-split layout)."""
    half = cos_TR.shape[-1]
    cos, sin = cos_TR.to(x_BHTN.dtype), sin_TR.to(x_BHTN.dtype)
    first, second, rest = x_BHTN.split((half, half, x_BHTN.shape[-1] - 2 * half), dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin, rest), dim=-1)


@dataclass
class Shared:
    """What the blocks of one forward pass share. The first block stores `first_value_BTV` in it."""

    x0_BTD: Tensor  # the embeddings
    rotary: tuple[Tensor, Tensor]
    cache: KeyValueCache | None
    band: Band | None  # with a cache
    value_embedding_BTV: Tensor | None
    first_value_BTV: Tensor | None = None
    losses: list[Tensor] | None = None  # where routers leave the loss that keeps them at their capacity


class Attention(nn.Module):
    """Causal attention of one layer. `exclusive` switches XSA on (#885, #1185: the last layers)."""

    def __init__(self, model: Model, exclusive: bool, value_embedded: bool):
        super().__init__()
        self.heads, self.kv_heads, self.exclusive = model.heads, model.kv_heads, exclusive
        self.query = nn.Linear(model.width, model.width, bias=False)
        self.key = nn.Linear(model.width, model.kv_width, bias=False)
        self.value = nn.Linear(model.width, model.kv_width, bias=False)
        self.output = nn.Linear(model.width, model.width, bias=False)
        self.query_gain = nn.Parameter(torch.full((model.heads,), model.qk_gain))
        self.value_embedding_scale = nn.Parameter(torch.tensor(1.0)) if value_embedded else None
        self.value_mix = nn.Parameter(torch.tensor([0.5, 0.5])) if model.value_residual else None
        self.gate_HD = nn.Parameter(torch.zeros(model.heads, model.width)) if model.gated_attention else None
        self.gate_bias_H = nn.Parameter(torch.full((model.heads,), 4.0)) if model.gated_attention else None  # σ(4) = 0.982

    def forward(self, x_BTD: Tensor, shared: Shared, pass_index: int) -> Tensor:
        """`pass_index` numbers the passes through layers, each of which has a buffer of its own in the cache."""
        B, T, D = x_BTD.shape
        N = D // self.heads
        q_BHTN = self.query(x_BTD).view(B, T, self.heads, N).transpose(1, 2)
        k_BGTN = self.key(x_BTD).view(B, T, self.kv_heads, N).transpose(1, 2)
        v_BGTN = self._values(x_BTD, shared).view(B, T, self.kv_heads, N).transpose(1, 2)
        q_BHTN = rotate(F.rms_norm(q_BHTN, (N,)), *shared.rotary) * self.query_gain.to(q_BHTN.dtype)[:, None, None]
        k_BGTN = rotate(F.rms_norm(k_BGTN, (N,)), *shared.rotary)
        if shared.cache is None:
            y_BHTN = causal_attention(q_BHTN, k_BGTN, v_BGTN, self.query_gain)
        else:
            k_BGSN, v_BGSN = shared.cache.extend(pass_index, k_BGTN, v_BGTN)
            y_BHTN = shared.band.attention(q_BHTN, k_BGSN, v_BGSN)
        if self.exclusive:
            y_BHTN = exclude_own_value(y_BHTN, v_BGTN)
        y_BTHN = y_BHTN.transpose(1, 2)
        if self.gate_HD is not None:
            y_BTHN = y_BTHN * torch.sigmoid(F.linear(x_BTD, self.gate_HD) + self.gate_bias_H).to(y_BTHN.dtype)[..., None]
        return self.output(y_BTHN.reshape(B, T, D))

    def _values(self, x_BTD: Tensor, shared: Shared) -> Tensor:
        """(B, T, V) of all heads, with the token's embedding and the first layer's values where they are on (#1185)."""
        v_BTV = self.value(x_BTD)
        if self.value_embedding_scale is not None:
            v_BTV = v_BTV + self.value_embedding_scale * shared.value_embedding_BTV
        if self.value_mix is not None:
            if shared.first_value_BTV is None:
                shared.first_value_BTV = v_BTV
            v_BTV = self.value_mix[0] * shared.first_value_BTV + self.value_mix[1] * v_BTV
        return v_BTV


def causal_attention(q_BHTN: Tensor, k_BGTN: Tensor, v_BGTN: Tensor, gain_H: Tensor) -> Tensor:
    """Attention inside a window. On a CPU it is written out: compiled, 1.6 times the speed of the fused kernel there.

    q and k have RMS 1 and q the gain of its head, so a score is within ±|gain|·√N: softmax needs no pass for the maximum.
    Only what that bound exceeds 60 by is subtracted, so that no sum of exponentials underflows up to a bound of 70.
    """
    if q_BHTN.is_cuda:
        return F.scaled_dot_product_attention(q_BHTN, k_BGTN, v_BGTN, is_causal=True, enable_gqa=True)
    B, H, T, N = q_BHTN.shape
    G = k_BGTN.shape[1]
    scores = q_BHTN.reshape(B, G, H // G * T, N) @ k_BGTN.mT
    shift_GK11 = (gain_H.detach().abs().view(G, H // G, 1, 1) * N**0.5 - 60).clamp(min=0)
    future_TT = torch.full((T, T), float("-inf"), device=q_BHTN.device).triu(1)
    weights = torch.exp(scores.view(B, G, H // G, T, T).float() * N**-0.5 - shift_GK11 + future_TT)
    mixed = weights.to(v_BGTN.dtype).view(B, G, H // G * T, T) @ v_BGTN
    return (mixed.view(B, G, H // G, T, N) / weights.sum(-1, keepdim=True).to(v_BGTN.dtype)).view(B, H, T, N)


def exclude_own_value(y_BHTN: Tensor, v_BGTN: Tensor) -> Tensor:
    """XSA: y − (y·v̂)v̂ with v̂ the unit value of the same position in the head's key/value group."""
    B, H, T, N = y_BHTN.shape
    unit_BG1TN = F.normalize(v_BGTN, dim=-1).unsqueeze(2)
    y_BGKTN = y_BHTN.view(B, v_BGTN.shape[1], -1, T, N)
    along = (y_BGKTN * unit_BG1TN).sum(-1, keepdim=True)
    return (y_BGKTN - along * unit_BG1TN).view(B, H, T, N)
