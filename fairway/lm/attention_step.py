"""One token through an attention layer, in compiled loops: attention.py is its oracle, tests/lm/test_decoder.py compares them.

Shape letters: D width, H query heads, G key/value heads, N head width, V = G·N, C context, S positions seen, R half of
rope_dims.
"""

import math
from typing import NamedTuple

import numpy as np

from fairway.kernels import njit
from fairway.lm.attention import Attention
from fairway.lm.operations import EPSILON, NO_MATRIX, SUMS, dot, product, sigmoid, view


class AttentionWeights(NamedTuple):
    """The parameters of a layer: arrays of float32, empty or of one element where the architecture has none."""

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

    @classmethod
    def of(cls, layer: Attention) -> "AttentionWeights":
        return cls(
            query_DD=view(layer.query.weight),
            key_VD=view(layer.key.weight),
            value_VD=view(layer.value.weight),
            output_DD=view(layer.output.weight),
            query_gain_H=view(layer.query_gain),
            value_embedding_scale=view(layer.value_embedding_scale),
            value_mix=view(layer.value_mix, np.array([0, 1], np.float32)),
            exclusive=layer.exclusive,
            gate_HD=view(layer.gate_HD, NO_MATRIX),
            gate_bias_H=view(layer.gate_bias_H),
        )


class KeyValueRing(NamedTuple):
    """Keys and values of the last C positions of one pass through a layer: position p lies in place p mod C."""

    keys_GCN: np.ndarray
    values_GCN: np.ndarray

    @classmethod
    def empty(cls, shape_GCN: tuple[int, int, int]) -> "KeyValueRing":
        return cls(np.zeros(shape_GCN, np.float32), np.zeros(shape_GCN, np.float32))


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
def values_of(x_D, first_value_V, embedded_V, w, kept_GN):
    """The token's values into the ring. `first_value_V` (V,) is filled by the first layer: NaN before it."""
    v_V = product(w.value_VD, x_D)
    is_first, N = np.isnan(first_value_V[0]), kept_GN.shape[1]
    for i in range(len(v_V)):
        value = v_V[i] + w.value_embedding_scale[0] * embedded_V[i]
        if is_first:
            first_value_V[i] = value
        kept_GN[i // N, i % N] = w.value_mix[0] * first_value_V[i] + w.value_mix[1] * value


@njit
def attention_step(x_D, first_value_V, embedded_V, ring, position, seen, cos_R, sin_R, w):
    """The attention layer's output (D,)."""
    G, capacity, N = ring.keys_GCN.shape
    place, H = position % capacity, len(w.query_gain_H)
    values_of(x_D, first_value_V, embedded_V, w, ring.values_GCN[:, place])
    k_V, q_D = product(w.key_VD, x_D), product(w.query_DD, x_D)
    for g in range(G):
        rotated(k_V[g * N : (g + 1) * N], cos_R, sin_R, 1.0, ring.keys_GCN[g, place])
    y_D, q_N = np.empty(H * N, np.float32), np.empty(N, np.float32)
    for h in range(H):
        g, y_N = h // (H // G), y_D[h * N : (h + 1) * N]
        v_N = ring.values_GCN[g, place]
        rotated(q_D[h * N : (h + 1) * N], cos_R, sin_R, w.query_gain_H[h], q_N)
        attend(q_N, ring.keys_GCN[g], ring.values_GCN[g], position, seen, y_N)
        along = dot(y_N, v_N) / max(dot(v_N, v_N), np.float32(1e-24)) if w.exclusive else np.float32(0)
        gate = sigmoid(dot(w.gate_HD[h], x_D) + w.gate_bias_H[h]) if len(w.gate_HD) else np.float32(1)
        for n in range(N):
            y_N[n] = gate * (y_N[n] - along * v_N[n])
    return product(w.output_DD, y_D)
