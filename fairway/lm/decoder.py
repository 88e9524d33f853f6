"""The network one token at a time, in compiled loops over its own weights: what a decoder runs. model.py is its oracle.

A token of the default network costs PyTorch 2.7 ms, nearly all of it spent on starting four hundred small operations; here
it costs as long as it takes to read the weights once.

Shape letters: D width, V all of a token's key or value dimensions, R half of rope_dims.
"""

from typing import NamedTuple

import numpy as np

from fairway.kernels import njit
from fairway.lm import model as network
from fairway.lm.attention_step import AttentionWeights, KeyValueRing, attention_step
from fairway.lm.embeddings_step import EmbeddingStep, ValueEmbeddingStep
from fairway.lm.feed_forward_step import FeedForwardWeights, feed_forward_step, routed_share
from fairway.lm.operations import normalized, product, view


class BlockWeights(NamedTuple):
    """The parameters of a block; they change nothing where the architecture has none."""

    norm_scale: float
    residual_mix_2D: np.ndarray
    attention: AttentionWeights
    attention_scale_D: np.ndarray
    feed_forward: FeedForwardWeights
    feed_forward_scale_D: np.ndarray

    @classmethod
    def of(cls, block: network.Block) -> "BlockWeights":
        width = len(block.attention_scale)
        unmixed = np.stack((np.ones(width, np.float32), np.zeros(width, np.float32)))
        return cls(
            norm_scale=block.norm_scale,
            residual_mix_2D=view(block.residual_mix, unmixed),
            attention=AttentionWeights.of(block.attention),
            attention_scale_D=view(block.attention_scale),
            feed_forward=FeedForwardWeights.of(block.feed_forward, block.router),
            feed_forward_scale_D=view(block.feed_forward_scale),
        )


@njit
def block_step(x_D, x0_D, first_value_V, embedded_V, ring, position, seen, cos_R, sin_R, w):
    """What the block makes of x (D,)."""
    y_D = np.empty_like(x_D)
    for d in range(len(x_D)):
        y_D[d] = w.residual_mix_2D[0, d] * x_D[d] + w.residual_mix_2D[1, d] * x0_D[d]
    n_D = normalized(y_D, w.norm_scale)
    attention_D = attention_step(n_D, first_value_V, embedded_V, ring, position, seen, cos_R, sin_R, w.attention)
    for d in range(len(x_D)):
        y_D[d] += w.attention_scale_D[d] * attention_D[d]
    n_D = normalized(y_D, w.norm_scale)
    share = routed_share(n_D, w.feed_forward)
    if share > 0:
        feed_forward_D = feed_forward_step(n_D, w.feed_forward)
        for d in range(len(x_D)):
            y_D[d] += w.feed_forward_scale_D[d] * (share * feed_forward_D[d])
    return y_D


class Decoder:
    """A network part-way through a text: the same as model.GPT with a StreamState, a token at a time.

    With `reset_documents` nothing of a document reaches the next one. Make it after all parameters have their final place
    in memory; their values may change between tokens. It runs every recurrent pass.
    """

    def __init__(self, model: network.GPT, context: int, reset_documents: bool):
        a, self.model, self.context, self.reset_documents = model.architecture, model, context, reset_documents
        unet, again = a.schedule(recurrent=True)
        blocks = [BlockWeights.of(block) for block in model.blocks]
        self.passes = [blocks[layer] for layer in unet + again]
        self.half = len(unet) // 2 if a.skips else 0
        self.rings = [KeyValueRing.empty((a.kv_heads, context, a.head_width)) for _ in self.passes]
        self.frequency_R = a.scaled_rope_base ** (-np.arange(0, a.rope_dims, 2) / a.rope_dims) if a.rope_dims else np.empty(0)
        self.embedding = EmbeddingStep(model.stream)
        self.value_embedding = ValueEmbeddingStep(model.value_embedding, a.kv_width)
        self.skip_weights = view(model.skip_weights) if a.skips else None
        self.skip_gates = None if model.skip_gates is None else view(model.skip_gates)
        self.lm_head_VD = view(model.lm_head)
        self.position, self.document = 0, 0

    def feed(self, token: int) -> np.ndarray:
        """The normalized final hidden state (D,) that predicts what follows the token."""
        starts = token == self.model.architecture.bos
        if starts and self.reset_documents:
            self.document = self.position
        x_D = x0_D = self.embedding.feed(token, starts)
        angle_R = self.position * self.frequency_R
        cos_R, sin_R = np.cos(angle_R).astype(np.float32), np.sin(angle_R).astype(np.float32)
        seen = min(self.position - self.document + 1, self.context)
        first_value_V = np.full(self.model.architecture.kv_width, np.nan, np.float32)
        embedded_V, skips = self.value_embedding.feed(token), []
        for index, (block, ring) in enumerate(zip(self.passes, self.rings, strict=True)):
            if self.half <= index and skips:
                x_D = self._join(x_D, skips.pop(), index - self.half)
            x_D = block_step(x_D, x0_D, first_value_V, embedded_V, ring, self.position, seen, cos_R, sin_R, block)
            if index < self.half:
                skips.append(x_D)
        self.position += 1
        return normalized(x_D, 1.0)

    def _join(self, x_D: np.ndarray, skip_D: np.ndarray, index: int) -> np.ndarray:
        skip_D = self.skip_weights[index] * skip_D
        if self.skip_gates is None:
            return x_D + skip_D
        gate_D = 1 / (1 + np.exp(-self.skip_gates[index]))
        return gate_D * x_D + (1 - gate_D) * skip_D

    def logits(self, hidden_D: np.ndarray) -> np.ndarray:
        """Capped logits (V,) of a final hidden state."""
        cap = np.float32(self.model.architecture.logit_softcap)
        return cap * np.tanh(product(self.lm_head_VD, hidden_D) / cap)
