"""The `quant` section: which grid each tensor is rounded to, and how.

Behind an entropy coder bits and clip are two names of one thing, the step: one bit more, or half the clip, halve it
(DESIGN 3.4). Bits stay the main knob; k = 12.85 and 20 are the published clips for 6 and 8 bits (#1394).
"""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded


@dataclass(frozen=True)
class Quant:
    """Clips are in standard deviations of a row, damping in means of the Hessian's diagonal, block in columns."""

    method: Literal["gptq", "rtn"]
    bits: int = bounded(ge=2, le=8)
    clip: float = bounded(gt=0, le=1000)
    embedding_bits: int = bounded(ge=2, le=8)
    embedding_clip: float = bounded(gt=0, le=1000)
    calibration_tokens: int = bounded(ge=1)
    damping: float = bounded(gt=0, le=1)
    block: int = bounded(ge=1)
