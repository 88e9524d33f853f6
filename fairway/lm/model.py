"""The network shared by the five systems: a U-Net of transformer blocks over normalized embeddings.

Unlike a textbook transformer: every block mixes the embeddings x0 back in; its normalized inputs shrink with depth by
1/√(layer+1); attention and feed-forward return through learned per-channel scales; skip connections lead from the first
half of the passes to the second, the last output first; some blocks may run again (depth recurrence); there are no biases
and no norm weights; the head is the embedding table, its logits capped by cap·tanh(logits/cap).
The same forward pass trains on windows and, given a `StreamState`, goes through a text in chunks of any size.

The modules `stream` and `unembedding` are the embedding and the LM head: tensors have these names in files.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.lm.attention import Attention, KeyValueCache, Shared, rotary_tables
from fairway.lm.config import Architecture
from fairway.lm.embeddings import Embedding, PreviousToken, ValueEmbedding
from fairway.lm.feed_forward import FeedForward, Router
from fairway.lm.parameters import EMBEDDING, LM_HEAD, initial_of


@dataclass
class StreamState:
    """All that is kept of a text from one chunk to the next; tokens reach it only by being fed to the network."""

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

    def forward(self, x_BTD: Tensor, shared: Shared, pass_index: int) -> Tensor:
        if self.residual_mix is not None:
            x_BTD = self.residual_mix[0] * x_BTD + self.residual_mix[1] * shared.x0_BTD
        x_BTD = x_BTD + self.attention_scale * self.attention(self._norm(x_BTD), shared, pass_index)
        if self.router is None:
            return x_BTD + self.feed_forward_scale * self.feed_forward(self._norm(x_BTD))
        return x_BTD + self.feed_forward_scale * self.router(self._norm(x_BTD), self.feed_forward, shared.losses)

    def _norm(self, x_BTD: Tensor) -> Tensor:
        return F.rms_norm(x_BTD, x_BTD.shape[-1:]) * self.norm_scale


class GPT(nn.Module):
    """Tokens (B, T) to logits (B, T, V), float32. Call `initialise` before training from scratch.

    `recurrent` is whether the recurrent layers run again: training may start with False, everything else has True.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = self.architecture = architecture
        self.stream = Embedding(a)
        self.value_embedding = ValueEmbedding(a) if a.value_embedding_layers else None
        self.blocks = nn.ModuleList(Block(a, layer) for layer in range(a.layers))
        if a.skips:
            self.skip_weights = nn.Parameter(torch.ones(a.skips, a.width))
        self.skip_gates = nn.Parameter(torch.zeros(a.skips, a.width)) if a.unet_skips == "gated" else None
        self.unembedding = None if a.tied_embeddings else nn.Linear(a.width, a.vocabulary_size, bias=False)

    def forward(self, tokens_BT: Tensor, state: StreamState | None = None, recurrent: bool = True) -> Tensor:
        return self.head(self.hidden(tokens_BT, state, recurrent=recurrent))

    def hidden(
        self,
        tokens_BT: Tensor,
        state: StreamState | None = None,
        losses: list[Tensor] | None = None,
        recurrent: bool = True,
    ) -> Tensor:
        """The normalized final hidden states (B, T, D). Routers in training append the losses they learn from to `losses`."""
        a, cache = self.architecture, state.cache if state else None
        T, position = tokens_BT.shape[1], cache.position if cache else 0
        x_BTD = self.stream(tokens_BT, state.previous if state else None)
        values = self.value_embedding(tokens_BT) if self.value_embedding is not None else None
        rotary = rotary_tables(position, T, a.rope_dims, a.scaled_rope_base, tokens_BT.device)
        band = cache.advance(tokens_BT == a.bos) if cache else None
        shared = Shared(x_BTD, rotary, cache, band, values, losses=losses)
        unet, again = a.schedule(recurrent)
        half = len(unet) // 2 if a.skips else 0
        skips = []
        for index, layer in enumerate(unet + again):
            if index >= half and skips:
                x_BTD = self._join(x_BTD, skips.pop(), index - half)
            x_BTD = self.blocks[layer](x_BTD, shared, index)
            if index < half:
                skips.append(x_BTD)
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def _join(self, x_BTD: Tensor, skip_BTD: Tensor, index: int) -> Tensor:
        """The skip connection: added (#549), or weighed against the hidden state by a gate (#598)."""
        skip_BTD = self.skip_weights[index] * skip_BTD
        if self.skip_gates is None:
            return x_BTD + skip_BTD
        gate_D = torch.sigmoid(self.skip_gates[index])
        return gate_D * x_BTD + (1 - gate_D) * skip_BTD

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Capped logits (B, T, V) in float32."""
        return self.capped(F.linear(hidden_BTD, self.lm_head))

    @property
    def lm_head(self) -> nn.Parameter:
        """The matrix (V, D) of the logits: the embedding table where they are tied."""
        return self.stream.embedding.weight if self.unembedding is None else self.unembedding.weight

    @property
    def lm_head_name(self) -> str:
        return EMBEDDING if self.unembedding is None else LM_HEAD

    def untie_lm_head(self) -> None:
        """Give a tied network a head of its own that starts as its embedding table, so that the head can learn alone."""
        if self.unembedding is None:
            table_VD = self.stream.embedding.weight
            self.unembedding = nn.Linear(*table_VD.T.shape, bias=False, device=table_VD.device)
            self.unembedding.weight.data.copy_(table_VD.data)

    def capped(self, logits: Tensor) -> Tensor:
        cap = self.architecture.logit_softcap
        return cap * torch.tanh(logits.float() / cap)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Orthogonal matrices, zero outputs, small tables: every block starts as the identity (#549)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            match initial_of(name, parameter.shape, self.architecture.bigram_hash):
                case "zero":
                    parameter.zero_()
                case "orthogonal":
                    nn.init.orthogonal_(parameter, generator=generator)
                case "unit":
                    parameter.normal_(0, parameter.numel() ** -0.5, generator=generator)
                case float(deviation):
                    parameter.normal_(0, deviation, generator=generator)
