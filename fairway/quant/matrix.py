"""A weight matrix as it is stored: integers, one step per row, and how to turn them into weights again.

Numpy only, in a fixed order of operations, so that every machine decodes the same weights bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from fairway.quant.rotation import rotate
from fairway.quant.trellis import steps_of


@dataclass(frozen=True)
class QuantisedMatrix:
    """Weights = integers · scales, rotated back where the columns were rotated, plus the low-rank correction.

    `integers` int8 (R, C) within ±(2^(integer_bits−1) − 1), `scales` fp16 (R,). `states` of the trellis, 0 for a plain grid,
    on which integers count scales. `rotation` is the block size of the Hadamard rotation, 0 for none. `correction` holds two
    plain matrices, left (k, R) and right (k, C); leftᵀ · right is added to the weights.
    """

    integers: np.ndarray
    scales: np.ndarray
    integer_bits: int
    states: int = 0
    rotation: int = 0
    correction: "tuple[QuantisedMatrix, QuantisedMatrix] | None" = None

    def weights(self) -> np.ndarray:
        """Float32 (R, C). A value of at most 254 steps times an fp16 scale is exact in float32."""
        weight_RC = steps_of(self.integers, self.states).astype(np.float32) * self.scales.astype(np.float32)[:, None]
        if self.rotation:
            weight_RC = rotate(weight_RC, self.rotation)
        if self.correction:
            for left_R, right_C in zip(*(factor.weights() for factor in self.correction), strict=True):
                weight_RC += left_R[:, None] * right_C
        return weight_RC
