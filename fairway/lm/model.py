"""The network shared by the five systems: a U-Net of transformer blocks over a normalised embedding stream.

Unlike a textbook transformer: every block mixes the embedding stream x0 back in; its normalised inputs shrink with
depth by 1/√(layer+1); attention and feed-forward return through learned per-channel scales; the first half of the
blocks hands its outputs, last first, to the second half; the feed-forward squares a leaky ReLU; there are no biases and
no norm weights; the head is the embedding table, its logits capped by cap·tanh(logits/cap).
The same forward pass trains on windows and, given a `StreamState`, goes through a stream in blocks of any size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.lm.attention import Attention, KeyValueCache, rotary_tables
from fairway.lm.config import Architecture
from fairway.lm.embeddings import EmbeddingStream, PreviousToken


@dataclass
class StreamState:
    """All that a stream remembers between blocks; tokens reach it only by being fed to the network."""

    cache: KeyValueCache
    previous: PreviousToken

    @classmethod
    def start(cls, context: int) -> "StreamState":
        return cls(KeyValueCache(context), PreviousToken())


class FeedForward(nn.Module):
    """LeakyReLU(up(x))² (#549): ReLU² at slope 0."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.slope = architecture.leaky_slope
        self.up = nn.Linear(architecture.width, architecture.mlp_width, bias=False)
        self.down = nn.Linear(architecture.mlp_width, architecture.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(F.leaky_relu(self.up(x_BTD), self.slope).square())


class Block(nn.Module):
    def __init__(self, architecture: Architecture, layer: int):
        super().__init__()
        width = architecture.width
        self.layer = layer
        self.norm_scale = 1 / math.sqrt(layer + 1)
        self.attention = Attention(architecture, exclusive=layer >= architecture.layers - architecture.xsa_layers)
        self.feed_forward = FeedForward(architecture)
        self.residual_mix = nn.Parameter(torch.stack((torch.ones(width), torch.zeros(width))))
        self.attention_scale = nn.Parameter(torch.ones(width))
        self.feed_forward_scale = nn.Parameter(torch.ones(width))

    def forward(self, x_BTD: Tensor, x0_BTD: Tensor, rotary: tuple, cache: KeyValueCache | None) -> Tensor:
        shape = x_BTD.shape[-1:]
        x_BTD = self.residual_mix[0] * x_BTD + self.residual_mix[1] * x0_BTD
        attended = self.attention(F.rms_norm(x_BTD, shape) * self.norm_scale, rotary, self.layer, cache)
        x_BTD = x_BTD + self.attention_scale * attended
        return x_BTD + self.feed_forward_scale * self.feed_forward(F.rms_norm(x_BTD, shape) * self.norm_scale)


class GPT(nn.Module):
    """Tokens (B, T) to logits (B, T, V), float32. Call `initialise` before training from scratch."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.architecture = architecture
        self.stream = EmbeddingStream(architecture)
        self.blocks = nn.ModuleList(Block(architecture, layer) for layer in range(architecture.layers))
        self.skips = architecture.layers // 2 if architecture.unet_skips else 0
        if self.skips:
            self.skip_weights = nn.Parameter(torch.ones(self.skips, architecture.width))

    def forward(self, tokens_BT: Tensor, state: StreamState | None = None) -> Tensor:
        return self.head(self.hidden(tokens_BT, state))

    def hidden(self, tokens_BT: Tensor, state: StreamState | None = None) -> Tensor:
        """The normalised final hidden states (B, T, D)."""
        a = self.architecture
        T = tokens_BT.shape[1]
        cache = state.cache if state else None
        rotary = rotary_tables(cache.position if cache else 0, T, a.rope_dims, a.rope_base, tokens_BT.device)
        x0_BTD = self.stream(tokens_BT, state.previous if state else None)
        x_BTD = x0_BTD
        handed_over = []
        for layer, block in enumerate(self.blocks):
            if handed_over and layer >= self.skips:
                x_BTD = x_BTD + self.skip_weights[layer - self.skips] * handed_over.pop()
            x_BTD = block(x_BTD, x0_BTD, rotary, cache)
            if layer < self.skips:
                handed_over.append(x_BTD)
        if cache:
            cache.position += T
        return F.rms_norm(x_BTD, x_BTD.shape[-1:])

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Capped logits (B, T, V) in float32."""
        cap = self.architecture.logit_softcap
        return cap * torch.tanh(F.linear(hidden_BTD, self.stream.embedding.weight).float() / cap)

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Orthogonal matrices, zero outputs, a small embedding: every block starts as the identity (#549)."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith(("output.weight", "down.weight", "table.weight")):
                parameter.zero_()
            elif name == "stream.embedding.weight":
                parameter.normal_(0, 0.005, generator=generator)
            elif parameter.ndim == 2 and name.endswith(".weight"):
                nn.init.orthogonal_(parameter, generator=generator)


def linear_names(model: nn.Module) -> list[str]:
    """Names of the weights of all linear layers, in the order of the network."""
    return [f"{name}.weight" for name, module in model.named_modules() if isinstance(module, nn.Linear)]
