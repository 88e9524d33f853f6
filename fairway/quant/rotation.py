"""Walsh–Hadamard rotation of the columns in blocks (QuaRot, Ashkboos et al. 2024, arXiv 2404.00456; #1400).

It spreads an outlier over its whole block, so that the grid need not reach out to it. The matrix Q is orthonormal and
symmetric, hence its own inverse, and is never formed: butterflies take log2(block) additions per weight. Additions have a
fixed order and the only factor is correctly rounded, so every machine decodes the same bits. QuaRot's random signs are left
out. The code uses only operators that numpy and torch share; the decoder needs numpy only.
"""

import math
from typing import TypeVar

Array = TypeVar("Array")  # numpy array or torch tensor, float32 or float64

LARGEST_BLOCK = 1024


def block_size(columns: int) -> int:
    """The largest power of two, at most 1024, that divides `columns`: 512 for 1536 = 3 x 512; a block of 1 changes nothing."""
    return min(columns & -columns, LARGEST_BLOCK)


def rotate(x_RC: Array, block: int) -> Array:
    """x·Q in the type of x, where Q has Hadamard matrices of `block` columns over √block on its diagonal.

    `block` is a power of two that divides C. Rotating twice gives x back, up to rounding.
    """
    x = x_RC.reshape(-1, block).T.reshape(-1) * (1 / math.sqrt(block))  # block-major: each addition is over whole rows
    half = x.shape[0] // 2
    for _ in range(block.bit_length() - 1):
        pairs = x.reshape(-1, 2, half)
        pairs[:, 0], pairs[:, 1] = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        half //= 2
    return x.reshape(block, -1).T.reshape(x_RC.shape)


def rotate_hessian(hessian_CC: Array, block: int) -> Array:
    """QᵀHQ, the Hessian of the rotated inputs: tr(ΔHΔᵀ) is equal for Δ with H and for the rotated Δ with QᵀHQ."""
    return rotate(rotate(hessian_CC, block).T, block).T
