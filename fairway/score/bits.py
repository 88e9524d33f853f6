"""Bits per byte, in one place: the bits of all targets over the UTF-8 bytes of the text they spell.

Every token of the stream but the very first BOS is a target; a later BOS costs bits and spells no byte. The bytes are
those of the documents themselves (DESIGN 3.8), never tokens times a constant.
"""

import math

import numpy as np


def bits_per_byte(nats: np.ndarray, text_bytes: int) -> float:
    """Sum of nats in float64 over ln 2, over the bytes of the text."""
    return float(np.sum(nats, dtype=np.float64)) / math.log(2) / text_bytes
