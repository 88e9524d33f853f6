"""A weight matrix as it is stored: integers, a step for each row, and what is done to them on the way back.

Numpy in and out, in a fixed order of operations: every machine that decodes gets the same weights to the bit.
"""

from dataclasses import dataclass

import numpy as np

from fairway.quant.rotation import rotate
from fairway.quant.trellis import steps_of


@dataclass(frozen=True)
class QuantisedMatrix:
    """Weights steps·scales, turned back where the columns were rotated, plus the low-rank repair.

    `integers` int8 (R, C) within ±(2^(bits−1) − 1), `scales` fp16 (R,); `states` of the trellis, 0 for a plain grid;
    `rotation` is the block of the Hadamard rotation, 0 for none; `repair` are two plain matrices, (k, R) and (k, C),
    the transpose of the first times the second.
    """

    integers: np.ndarray
    scales: np.ndarray
    bits: int
    states: int = 0
    rotation: int = 0
    repair: "tuple[QuantisedMatrix, QuantisedMatrix] | None" = None

    def weights(self) -> np.ndarray:
        """Float32 (R, C); an integer of 16 bits or fewer times an fp16 fits into float32 exactly."""
        weight_RC = steps_of(self.integers, self.states).astype(np.float32) * self.scales.astype(np.float32)[:, None]
        if self.rotation:
            weight_RC = rotate(weight_RC, self.rotation)
        if self.repair:
            for left_R, right_C in zip(*(factor.weights() for factor in self.repair), strict=True):
                weight_RC += left_R[:, None] * right_C
        return weight_RC
