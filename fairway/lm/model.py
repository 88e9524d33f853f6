"""The network shared by the five systems: a U-Net of transformer blocks over a normalised embedding stream.

Unlike a textbook transformer: every block mixes the embedding stream x0 back in; its normalised inputs shrink with
depth by 1/√(layer+1); attention and feed-forward return through learned per-channel scales; the first half of the
blocks hands its outputs, last first, to the second half; some blocks may run again (depth recurrence); there are no
biases and no norm weights; the head is the embedding table, its logits capped by cap·tanh(logits/cap).
The same forward pass trains on windows and, given a `StreamState`, goes through a stream in blocks of any size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.lm.attention import Attention, KeyValueCache, Shared, rotary_tables
from fairway.lm.config import Architecture
from fairway.lm.embeddings import EmbeddingStream, PreviousToken, ValueEmbedding
from fairway.lm.feed_forward import FeedForward, Router


@dataclass
class StreamState:
    """All that a stream remembers between blocks; tokens reach it only by being fed to the network."""

    cache: KeyValueCache
    previous: PreviousToken

    @classmethod
    def start(cls, context: int, reset_documents: bool = False) -> "StreamState":
        """With `reset_documents` nothing of a document reaches the next one."""
        return cls(KeyValueCache(context, reset_documents), PreviousToken())


class Block(nn.Module):
    def __init__(self, a: Architecture, layer: int):
        super().__init__()
        self.norm_scale = 1 / math.sqrt(layer + 1) if a.depth_scale else 1.0
        exclusive, value_embedded = layer >= a.layers - a.xsa_layers, layer in a.at(a.value_embedding_layers)
        self.attention = Attention(a, exclusive, value_embedded)
        self.feed_forward = FeedForward(a)
        self.router = Router(a.width, a.mod_capacity) if layer in a.at(a.mod_layers) else None
        mix = torch.stack((torch.ones(a.width), torch.zeros(a.width)))
        self.residual_mix = nn.Parameter(mix) if a.residual_mix else None
        self.attention_scale = nn.Parameter(torch.ones(a.width))
        self.feed_forward_scale = nn.Parameter(torch.ones(a.width))

    def forward(self, x_BTD: Tensor, shared: Shared, slot: int) -> Tensor:
        if self.residual_mix is not None:
            x_BTD = self.residual_mix[0] * x_BTD + self.residual_mix[1] * shared.x0_BTD
        x_BTD = x_BTD + self.attention_scale * self.attention(self._norm(x_BTD), shared, slot)
        if self.router is None:
            return x_BTD + self.feed_forward_scale * self.feed_forward(self._norm(x_BTD))
        return x_BTD + self.feed_forward_scale * self.router(self._norm(x_BTD), self.feed_forward, shared.losses)

    def _norm(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, x_BTD.shape[-1:]) * self.norm_scale


class GPT(nn.Module):
    """Tokens (B, T) to logits (B, T, V), float32. Call `initialise` before training from scratch.

    `recurrent` is whether the recurrent layers run again; training may switch it on late, everything else has it on.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = self.architecture = architecture
        self.recurrent = True
        self.stream = EmbeddingStream(a)
        self.value_embedding = ValueEmbedding(a) if a.value_embedding_layers else None
        self.blocks = nn.ModuleList(Block(a, layer) for layer in range(a.layers))
        if a.skips:
            self.skip_weights = nn.Parameter(torch.ones(a.skips, a.width))
        self.skip_gates = nn.Parameter(torch.zeros(a.skips, a.width)) if a.unet_skips == "gated" else None
        self.unembedding = None if a.tied_embeddings else nn.Linear(a.width, a.vocabulary_size, bias=False)

    def forward(self, tokens_BT: Tensor, state: StreamState | None = None) -> Tensor:
        return self.head(self.hidden(tokens_BT, state))

    def hidden(self, tokens_BT: Tensor, state: StreamState | None = None, losses: list[Tensor] | None = None) -> Tensor:
        """The normalised final hidden states (B, T, D). Routers in training append what they learn from to `losses`."""
        a, cache = self.architecture, state.cache if state else None
        T, position = tokens_BT.shape[1], cache.position if cache else 0
        x_BTD = self.stream(tokens_BT, state.previous if state else None)
        values = self.value_embedding(tokens_BT) if self.value_embedding is not None else None
        rotary = rotary_tables(position, T, a.rope_dims, a.scaled_rope_base, tokens_BT.device)
        band = cache.advance(tokens_BT == a.bos) if cache else None
        shared = Shared(x_BTD, rotary, cache, band, values, losses=losses)
        unet, again = a.schedule(self.recurrent)
        half = len(unet) // 2 if a.skips else 0
        handed_over = []
        for slot, layer in enumerate(unet + again):
            if slot >= half and handed_over:
                x_BTD = self._join(x_BTD, handed_over.pop(), slot - half)
            x_BTD = self.blocks[layer](x_BTD, shared, slot)
            if slot < half:
                handed_over.append(x_BTD)
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def _join(self, x_BTD: Tensor, skip_BTD: Tensor, index: int) -> Tensor:
        """What the second half of the U-Net takes over: added (#549), or weighed against the stream by a gate (#598)."""
        skip_BTD = self.skip_weights[index] * skip_BTD
        if self.skip_gates is None:
            return x_BTD + skip_BTD
        gate_D = torch.sigmoid(self.skip_gates[index])
        return gate_D * x_BTD + (1 - gate_D) * skip_BTD

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Capped logits (B, T, V) in float32."""
        table_VD = self.stream.embedding.weight if self.unembedding is None else self.unembedding.weight
        return self.capped(F.linear(hidden_BTD, table_VD))

    def capped(self, logits: Tensor) -> Tensor:
        cap = self.architecture.logit_softcap
        return cap * torch.tanh(logits.float() / cap)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Orthogonal matrices, zero outputs, small tables: every block starts as the identity (#549)."""
        generator = torch.Generator().manual_seed(seed)
        linear_hash = self.architecture.bigram_hash == "linear"
        zero = ["output.weight", "down.weight", "unembedding.weight"]
        zero.append("bigram.projection.weight" if linear_hash else "bigram.table.weight")
        for name, parameter in self.named_parameters():
            if name.endswith(tuple(zero)):
                parameter.zero_()
            elif name.endswith("table.weight"):
                parameter.normal_(0, 0.01, generator=generator)
            elif name == "stream.embedding.weight":
                parameter.normal_(0, 0.005, generator=generator)
            elif name.endswith("router.direction_D"):
                parameter.normal_(0, parameter.numel() ** -0.5, generator=generator)
            elif parameter.ndim == 2 and name.endswith(".weight"):
                nn.init.orthogonal_(parameter, generator=generator)
