"""One token through a feed-forward layer and its router, in compiled loops: feed_forward.py is its oracle.

Shape letters: D width, F feed-forward width.
"""

import math
from typing import NamedTuple

import numpy as np

from fairway.kernels import njit
from fairway.lm.feed_forward import FeedForward, Router
from fairway.lm.operations import NO_MATRIX, NO_VECTOR, dot, normalized, product, sigmoid, view

ACTIVATIONS = ("leaky_relu2", "star_relu", "swiglu", "square_glu")
LEAKY_RELU2, STAR_RELU, SWIGLU, _ = range(4)


class FeedForwardWeights(NamedTuple):
    """The parameters of a layer and of its router; empty, or one zero, where the architecture has none."""

    activation: int  # index into ACTIVATIONS
    leaky_slope: float
    up_FD: np.ndarray
    gate_FD: np.ndarray
    down_DF: np.ndarray
    star_scale_F: np.ndarray
    star_shift_F: np.ndarray
    router_D: np.ndarray
    threshold: np.ndarray

    @classmethod
    def of(cls, layer: FeedForward, router: Router | None) -> "FeedForwardWeights":
        gate = getattr(layer, "gate", None)
        return cls(
            activation=ACTIVATIONS.index(layer.activation),
            leaky_slope=layer.slope,
            up_FD=view(layer.up.weight),
            gate_FD=view(gate and gate.weight, NO_MATRIX),
            down_DF=view(layer.down.weight),
            star_scale_F=view(getattr(layer, "scale", None)),
            star_shift_F=view(getattr(layer, "shift", None)),
            router_D=view(router and router.direction_D, NO_VECTOR),
            threshold=view(router and router.threshold),
        )


@njit
def routed_share(x_D, w):
    """What the layer's output is multiplied by: tanh(score − threshold), 0 for a token that the router keeps out."""
    if len(w.router_D):
        return np.float32(math.tanh(max(np.float32(0), dot(normalized(x_D, 1.0), w.router_D) - w.threshold[0])))
    return np.float32(1)


@njit
def feed_forward_step(x_D, w):
    """The feed-forward layer's output (D,)."""
    h_F = product(w.up_FD, x_D)
    gate_F = product(w.gate_FD, x_D)
    for f in range(len(h_F)):
        up = h_F[f]
        leaky = up if up > 0 else up * np.float32(w.leaky_slope)
        if w.activation == LEAKY_RELU2:
            h_F[f] = leaky * leaky
        elif w.activation == STAR_RELU:
            h_F[f] = w.star_scale_F[f] * (leaky * leaky) + w.star_shift_F[f]
        elif w.activation == SWIGLU:
            h_F[f] = up * (gate_F[f] * sigmoid(gate_F[f]))
        else:
            h_F[f] = leaky * leaky * sigmoid(gate_F[f])
    return product(w.down_DF, h_F)
