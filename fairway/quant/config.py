"""The `quant` section: which grid each tensor is rounded to, and how.

Bits are the main setting (clips.py says how the clip trades with them); 12.85 and 20 are the published clips for 6 and 8 bits
(#1394).
"""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError

TOLERANCE = 0.001  # quant.target_bytes is filled to within this fraction of it, and never exceeded
ROLES = ("attention", "feed_forward", "embedding")
SEARCHES = ("percentile_row", "percentile_matrix", "mse")


@dataclass(frozen=True)
class Quant:
    """Clips in standard deviations of a row, damping in means of the Hessian's diagonal, temperature divides logits.

    Raises InputError for settings of which one would make the other ineffective.
    """

    method: Literal["gptq", "gptq_lite", "rtn"] = "rtn"
    bits: int = bounded(6, ge=2, le=8)
    attention_extra_bits: int = bounded(0, ge=-6, le=6)
    feed_forward_extra_bits: int = bounded(0, ge=-6, le=6)
    embedding_extra_bits: int = bounded(0, ge=-6, le=6)
    finer_layers: list[int] = bounded([])
    finer_bits: int = bounded(1, ge=1, le=6)
    clip_rule: Literal["deviation", "maximum", "percentile_row", "percentile_matrix", "mse"] = "deviation"
    clip: float = bounded(12.85, gt=0, le=1000)
    embedding_clip: float = bounded(20.0, gt=0, le=1000)
    per_tensor: bool = False
    scale_floor: bool = False
    scale_mantissa_bits: int = bounded(10, ge=0, le=10)
    small_mantissa_bits: int = bounded(10, ge=0, le=10)
    allocation: Literal["uniform", "sensitivity"] = "uniform"
    target_bytes: int = bounded(0, ge=0)
    trellis: Literal[0, 4, 8] = 0
    rate_weight: float = bounded(0.0, ge=0, le=10)
    rotation: Literal["none", "hadamard"] = "none"
    prune_fraction: float = bounded(0.0, ge=0, lt=1)
    prune_ones: float = bounded(0.0, ge=0, le=1)
    repair_matrices: int = bounded(0, ge=0)
    repair_rank: int = bounded(4, ge=1, le=255)
    repair_bits: int = bounded(4, ge=2, le=8)
    calibration: Literal["train", "generated", "random"] = "train"
    calibration_tokens: int = bounded(65_536, ge=1)
    calibration_temperature: float = bounded(0.8, gt=0)
    damping: float = bounded(0.01, gt=0, le=1)
    column_order: Literal["descending", "natural"] = "descending"
    block: int = bounded(128, ge=1)

    def __post_init__(self):
        if self.method == "gptq_lite" and self.clip_rule not in SEARCHES:
            raise InputError(
                f"quant.method gptq_lite searches for clips; expected quant.allocation uniform and quant.clip_rule "
                f"{', '.join(SEARCHES[:-1])} or {SEARCHES[-1]}, found {self.clip_rule}"
            )
        if self.allocation == "sensitivity" and (self.clip_rule != "deviation" or self.per_tensor or self.scale_floor):
            raise InputError(
                "quant.allocation sensitivity chooses every row's step itself; expected quant.clip_rule deviation, "
                "quant.per_tensor false and quant.scale_floor false, or quant.allocation uniform"
            )
        if self.trellis and self.prune_ones:
            raise InputError("quant.prune_ones would derail the trellis of the weights after it; expected quant.trellis 0")
        if self.prune_fraction and self.rotation != "none":
            raise InputError("quant.rotation would fill the zeros of quant.prune_fraction again; expected quant.rotation none")
        if self.allocation == "uniform":
            self._check_bits()

    def _check_bits(self) -> None:
        for role in ROLES:
            least = self.bits + getattr(self, f"{role}_extra_bits")
            most = least + (self.finer_bits if self.finer_layers and role != "embedding" else 0)
            if least < 2 or most > 8:
                raise InputError(
                    f"quant.bits {self.bits} with {role}_extra_bits and finer_bits gives {least if least < 2 else most} bits; "
                    "expected 2 to 8"
                )

    def bits_of(self, role: str, layer: int | None, layers: int) -> int:
        """Bits of a weight's grid: `bits` plus the extra bits of its role and of its layer, out of `layers`."""
        finer = layer is not None and layer in [chosen % layers for chosen in self.finer_layers]
        return self.bits + getattr(self, f"{role}_extra_bits", 0) + (self.finer_bits if finer else 0)

    def clip_of(self, role: str) -> float:
        return self.embedding_clip if role == "embedding" else self.clip
