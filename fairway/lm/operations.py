"""The operations on vectors that a compiled step of one token is made of, in float32 on a CPU.

Weights are views of the model's own parameters, so that a step of test-time training, which changes them in place, is seen
at once. What an architecture lacks is present with values that change nothing, so that one compiled step serves them all.
"""

import math

import numpy as np
from torch import Tensor

from fairway.kernels import njit

SUMS = {"reassoc", "contract"}  # sums may be taken in any order: what vector registers need, and all that they need
EPSILON = np.float32(np.finfo(np.float32).eps)  # of torch's rms_norm
NO_VECTOR, NO_MATRIX = np.zeros(0, np.float32), np.zeros((0, 0), np.float32)
ZERO, ONE = np.zeros(1, np.float32), np.ones(1, np.float32)


def view(parameter: Tensor | None, absent: np.ndarray = ZERO) -> np.ndarray:
    """The parameter's own memory, a scalar as an array of one element; `absent` where there is no parameter."""
    return absent if parameter is None else np.atleast_1d(parameter.detach().numpy())


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
def normalized(x, scale):
    """x with a root mean square of `scale`."""
    y = np.empty_like(x)
    factor = np.float32(scale / math.sqrt(dot(x, x) / len(x) + EPSILON))
    for i in range(len(x)):
        y[i] = x[i] * factor
    return y


@njit
def sigmoid(x):
    return np.float32(1 / (1 + math.exp(-x)))
