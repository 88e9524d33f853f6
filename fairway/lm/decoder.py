"""The network one token at a time, in compiled loops over its own weights: what a decoder runs. model.py is its oracle.

A token of the default network costs PyTorch 2.7 ms, nearly all of it spent on starting four hundred small operations; here
it costs as long as it takes to read the weights once. Weights and learned scalars are views of the model's parameters, so
that a step of test-time training, which changes them in place, is seen at once. What an architecture has not is there with
the values that change nothing, so that one compiled block serves all of them. On a CPU, in float32.

Shape letters: D width, F feed-forward width, H query heads, G key/value heads, N head width, C context, R half of rope_dims.
"""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from fairway.kernels import njit
from fairway.lm import model as network
from fairway.lm.config import Architecture

SUMS = {"reassoc", "contract"}  # sums may be taken in any order: what vector registers need, and all that they need
EPSILON = np.float32(np.finfo(np.float32).eps)  # of torch's rms_norm
ACTIVATIONS = ("leaky_relu2", "star_relu", "swiglu", "square_glu")
LEAKY_RELU2, STAR_RELU, SWIGLU, _ = range(4)


class Block(NamedTuple):
    """The parameters of a block: arrays of float32, empty or of one element where the architecture has none."""

    norm_scale: float
    residual_mix_2D: np.ndarray
    query_DD: np.ndarray
    key_VD: np.ndarray
    value_VD: np.ndarray
    output_DD: np.ndarray
    query_gain_H: np.ndarray
    value_embedding_scale: np.ndarray
    value_mix: np.ndarray
    exclusive: bool
    gate_HD: np.ndarray
    gate_bias_H: np.ndarray
    attention_scale_D: np.ndarray
    activation: int
    leaky_slope: float
    up_FD: np.ndarray
    gate_FD: np.ndarray
    down_DF: np.ndarray
    star_scale_F: np.ndarray
    star_shift_F: np.ndarray
    router_D: np.ndarray
    threshold: np.ndarray
    feed_forward_scale_D: np.ndarray


class Memory(NamedTuple):
    """Rings of the last C positions of one pass through a layer: position p lies in place p mod C."""

    keys_GCN: np.ndarray
    values_GCN: np.ndarray


def _array(parameter: Tensor | None, absent: np.ndarray) -> np.ndarray:
    """The parameter's own memory, scalars as arrays of one element."""
    return absent if parameter is None else np.atleast_1d(parameter.detach().numpy())


def block_of(block: nn.Module, a: Architecture) -> Block:
    attention, feed_forward, router = block.attention, block.feed_forward, block.router
    nothing, table = np.zeros(1, np.float32), np.zeros((0, 0), np.float32)
    unmixed = np.stack((np.ones(a.width, np.float32), np.zeros(a.width, np.float32)))
    gate = getattr(feed_forward, "gate", None)
    return Block(
        norm_scale=block.norm_scale,
        residual_mix_2D=_array(block.residual_mix, unmixed),
        query_DD=_array(attention.query.weight, table),
        key_VD=_array(attention.key.weight, table),
        value_VD=_array(attention.value.weight, table),
        output_DD=_array(attention.output.weight, table),
        query_gain_H=_array(attention.query_gain, nothing),
        value_embedding_scale=_array(attention.value_embedding_scale, nothing),
        value_mix=_array(attention.value_mix, np.array([0, 1], np.float32)),
        exclusive=attention.exclusive,
        gate_HD=_array(attention.gate_HD, table),
        gate_bias_H=_array(attention.gate_bias_H, nothing),
        attention_scale_D=_array(block.attention_scale, nothing),
        activation=ACTIVATIONS.index(a.activation),
        leaky_slope=a.leaky_slope,
        up_FD=_array(feed_forward.up.weight, table),
        gate_FD=_array(gate.weight if gate else None, table),
        down_DF=_array(feed_forward.down.weight, table),
        star_scale_F=_array(getattr(feed_forward, "scale", None), nothing),
        star_shift_F=_array(getattr(feed_forward, "shift", None), nothing),
        router_D=_array(router.direction_D if router else None, np.zeros(0, np.float32)),
        threshold=_array(router.threshold if router else None, nothing),
        feed_forward_scale_D=_array(block.feed_forward_scale, nothing),
    )


@njit(fastmath=SUMS)
def product(weight_OI, x_I):
    """weight · x."""
    y_O = np.empty(len(weight_OI), np.float32)
    for o in range(len(weight_OI)):
        total = np.float32(0)
        for i in range(len(x_I)):
            total += weight_OI[o, i] * x_I[i]
        y_O[o] = total
    return y_O


@njit(fastmath=SUMS)
def dot(x, y):
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@njit
def normalised(x, scale):
    """x with a root mean square of `scale`."""
    y = np.empty_like(x)
    factor = np.float32(scale / math.sqrt(dot(x, x) / len(x) + EPSILON))
    for i in range(len(x)):
        y[i] = x[i] * factor
    return y


@njit
def sigmoid(x):
    return np.float32(1 / (1 + math.exp(-x)))


@njit
def rotated(x_N, cos_R, sin_R, gain, y_N):
    """x with RMS `gain` and dimension i turned with i + R, for i < R."""
    factor, R = np.float32(gain / math.sqrt(dot(x_N, x_N) / len(x_N) + EPSILON)), len(cos_R)
    for i in range(R):
        y_N[i] = factor * (x_N[i] * cos_R[i] + x_N[i + R] * sin_R[i])
        y_N[i + R] = factor * (x_N[i + R] * cos_R[i] - x_N[i] * sin_R[i])
    for i in range(2 * R, len(x_N)):
        y_N[i] = factor * x_N[i]


@njit(fastmath=SUMS)
def attend(q_N, keys_CN, values_CN, position, seen, y_N):
    """Softmax attention of one head over the last `seen` positions, its own among them."""
    capacity, width = keys_CN.shape
    score_S, largest = np.empty(seen, np.float32), np.float32(-np.inf)
    first = (position - seen + 1) % capacity
    place = first
    for s in range(seen):
        score_S[s] = dot(q_N, keys_CN[place]) * np.float32(1 / math.sqrt(width))
        largest = max(largest, score_S[s])
        place = place + 1 if place + 1 < capacity else 0
    total, place = np.float32(0), first
    for n in range(width):
        y_N[n] = 0
    for s in range(seen):
        weight = np.float32(math.exp(score_S[s] - largest))
        total += weight
        for n in range(width):
            y_N[n] += weight * values_CN[place, n]
        place = place + 1 if place + 1 < capacity else 0
    for n in range(width):
        y_N[n] /= total


@njit
def values_of(x_D, first_value_V, embedded_V, b, kept_GN):
    """Into the memory. `first_value_V` (V,) is filled by the first layer: NaN before it."""
    v_V = product(b.value_VD, x_D)
    is_first, N = np.isnan(first_value_V[0]), kept_GN.shape[1]
    for i in range(len(v_V)):
        value = v_V[i] + b.value_embedding_scale[0] * embedded_V[i]
        if is_first:
            first_value_V[i] = value
        kept_GN[i // N, i % N] = b.value_mix[0] * first_value_V[i] + b.value_mix[1] * value


@njit
def attention(x_D, first_value_V, embedded_V, memory, position, seen, cos_R, sin_R, b):
    """The attention layer's output (D,)."""
    G, capacity, N = memory.keys_GCN.shape
    place, H = position % capacity, len(b.query_gain_H)
    values_of(x_D, first_value_V, embedded_V, b, memory.values_GCN[:, place])
    k_V, q_D = product(b.key_VD, x_D), product(b.query_DD, x_D)
    for g in range(G):
        rotated(k_V[g * N : (g + 1) * N], cos_R, sin_R, 1.0, memory.keys_GCN[g, place])
    y_D, q_N = np.empty(H * N, np.float32), np.empty(N, np.float32)
    for h in range(H):
        g, y_N = h // (H // G), y_D[h * N : (h + 1) * N]
        v_N = memory.values_GCN[g, place]
        rotated(q_D[h * N : (h + 1) * N], cos_R, sin_R, b.query_gain_H[h], q_N)
        attend(q_N, memory.keys_GCN[g], memory.values_GCN[g], position, seen, y_N)
        along = dot(y_N, v_N) / max(dot(v_N, v_N), np.float32(1e-24)) if b.exclusive else np.float32(0)
        gate = sigmoid(dot(b.gate_HD[h], x_D) + b.gate_bias_H[h]) if len(b.gate_HD) else np.float32(1)
        for n in range(N):
            y_N[n] = gate * (y_N[n] - along * v_N[n])
    return product(b.output_DD, y_D)


@njit
def feed_forward(x_D, b):
    """The feed-forward layer's output (D,)."""
    h_F = product(b.up_FD, x_D)
    gate_F = product(b.gate_FD, x_D)
    for f in range(len(h_F)):
        up = h_F[f]
        leaky = up if up > 0 else up * np.float32(b.leaky_slope)
        if b.activation == LEAKY_RELU2:
            h_F[f] = leaky * leaky
        elif b.activation == STAR_RELU:
            h_F[f] = b.star_scale_F[f] * (leaky * leaky) + b.star_shift_F[f]
        elif b.activation == SWIGLU:
            h_F[f] = up * (gate_F[f] * sigmoid(gate_F[f]))
        else:
            h_F[f] = leaky * leaky * sigmoid(gate_F[f])
    return product(b.down_DF, h_F)


@njit
def run_block(x_D, x0_D, first_value_V, embedded_V, memory, position, seen, cos_R, sin_R, b):
    """What the block makes of x (D,)."""
    y_D = np.empty_like(x_D)
    for d in range(len(x_D)):
        y_D[d] = b.residual_mix_2D[0, d] * x_D[d] + b.residual_mix_2D[1, d] * x0_D[d]
    n_D = normalised(y_D, b.norm_scale)
    attention_D = attention(n_D, first_value_V, embedded_V, memory, position, seen, cos_R, sin_R, b)
    for d in range(len(x_D)):
        y_D[d] += b.attention_scale_D[d] * attention_D[d]
    n_D, passed = normalised(y_D, b.norm_scale), np.float32(1)
    if len(b.router_D):
        passed = np.float32(math.tanh(max(np.float32(0), dot(normalised(n_D, 1.0), b.router_D) - b.threshold[0])))
    if passed > 0:
        feed_forward_D = feed_forward(n_D, b)
        for d in range(len(x_D)):
            y_D[d] += b.feed_forward_scale_D[d] * (passed * feed_forward_D[d])
    return y_D


class Decoder:
    """A network part-way through a text: the same as model.GPT with a StreamState, a token at a time.

    With `reset_documents` nothing of a document reaches the next one. Make it after all parameters have their final place
    in memory; their values may change between tokens.
    """

    def __init__(self, model: network.GPT, context: int, reset_documents: bool):
        a, self.model, self.context, self.reset_documents = model.architecture, model, context, reset_documents
        nothing, table = np.zeros(1, np.float32), np.zeros((0, 0), np.float32)
        unet, again = a.schedule(recurrent=True)
        blocks = [block_of(block, a) for block in model.blocks]
        self.passes = [blocks[layer] for layer in unet + again]
        self.unet, self.half = len(unet), len(unet) // 2 if a.skips else 0
        shape = a.kv_heads, context, a.head_width
        self.memories = [Memory(np.zeros(shape, np.float32), np.zeros(shape, np.float32)) for _ in self.passes]
        self.frequency_R = a.scaled_rope_base ** (-np.arange(0, a.rope_dims, 2) / a.rope_dims) if a.rope_dims else np.empty(0)
        self.embedding_VD = _array(model.stream.embedding.weight, table)
        bigram, values = model.stream.bigram, model.value_embedding
        self.bigram = bigram and (_array(bigram.table.weight, table), _array(bigram.projection.weight, table))
        self.bigram_scale = _array(bigram.scale if bigram else None, nothing + 1)
        self.smear_gate = None if model.stream.smear_gate is None else _array(model.stream.smear_gate, nothing)
        self.values = values and tuple(_array(p, table) for p in (values.table.weight, values.projection.weight, values.scale))
        self.skip_weights = _array(model.skip_weights, table) if a.skips else table
        self.skip_gates = None if model.skip_gates is None else _array(model.skip_gates, table)
        self.table_VD = self.embedding_VD if model.unembedding is None else _array(model.unembedding.weight, table)
        self.position, self.document, self.previous, self.before_D = 0, 0, None, np.zeros(a.width, np.float32)

    def feed(self, token: int) -> np.ndarray:
        """The normalised final hidden state (D,) that predicts what follows the token."""
        starts = token == self.model.architecture.bos
        if starts and self.reset_documents:
            self.document = self.position
        x_D = x0_D = self._embedded(token, starts)
        angle_R = self.position * self.frequency_R
        cos_R, sin_R = np.cos(angle_R).astype(np.float32), np.sin(angle_R).astype(np.float32)
        seen = min(self.position - self.document + 1, self.context)
        first_value_V = np.full(self.model.architecture.kv_width, np.nan, np.float32)
        embedded_V, handed_over = self._value_embedding(token), []
        for slot, (block, memory) in enumerate(zip(self.passes, self.memories, strict=True)):
            if self.half <= slot and handed_over:
                x_D = self._join(x_D, handed_over.pop(), slot - self.half)
            x_D = run_block(x_D, x0_D, first_value_V, embedded_V, memory, self.position, seen, cos_R, sin_R, block)
            if slot < self.half:
                handed_over.append(x_D)
        self.position += 1
        return normalised(x_D, 1.0)

    def _embedded(self, token: int, starts: bool) -> np.ndarray:
        """The embedding stream (D,), and what the next token needs of it."""
        first = self.previous is None
        x_D = self.embedding_VD[token]
        if self.bigram:
            table, projection = self.bigram
            bucket = self.model.stream.bigram.bucket(token, 0 if first else self.previous, starts or first)
            x_D = x_D + self.bigram_scale * product(projection, table[bucket])
        x_D = normalised(x_D, 1.0)
        before_D, self.before_D, self.previous = self.before_D, x_D, token
        if self.smear_gate is None or starts or first:
            return x_D
        return x_D + (before_D - x_D) / (1 + np.exp(-self.smear_gate))

    def _value_embedding(self, token: int) -> np.ndarray:
        if not self.values:
            return np.zeros(self.model.architecture.kv_width, np.float32)
        table, projection, scale = self.values
        return product(projection, table[token]) * scale

    def _join(self, x_D: np.ndarray, skip_D: np.ndarray, index: int) -> np.ndarray:
        skip_D = self.skip_weights[index] * skip_D
        if self.skip_gates is None:
            return x_D + skip_D
        gate_D = 1 / (1 + np.exp(-self.skip_gates[index]))
        return gate_D * x_D + (1 - gate_D) * skip_D

    def logits(self, hidden_D: np.ndarray) -> np.ndarray:
        """Capped logits (V,) of a final hidden state."""
        cap = np.float32(self.model.architecture.logit_softcap)
        return cap * np.tanh(product(self.table_VD, hidden_D) / cap)
