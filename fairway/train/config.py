"""The sections `train`, `qat` and `prequant_ttt`."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Train:
    seed: int = bounded(0, ge=0)
    steps: int = bounded(1000, ge=1)
    wall_clock_seconds: float = bounded(600.0, gt=0)
    tokens_per_step: int = bounded(4096, ge=2)
    tokens_per_pass: int = bounded(65_536, ge=2)
    sequence_length: int = bounded(256, ge=2)
    order: Literal["shuffled", "sequential", "coprime"] = "shuffled"
    muon_lr: float = bounded(0.02, gt=0, le=1)
    embedding_lr: float = bounded(0.03, gt=0, le=1)
    head_lr: float = bounded(0.008, gt=0, le=1)
    scalar_lr: float = bounded(0.02, gt=0, le=1)
    decoder_lr_multiplier: float = bounded(1.0, gt=0, le=100)
    orthogonaliser: Literal["newton_schulz", "polar_express"] = "newton_schulz"
    row_normalise: bool = False
    momentum_start: float = bounded(0.85, ge=0, lt=1)
    momentum: float = bounded(0.95, ge=0, lt=1)
    momentum_warmup_steps: int = bounded(0, ge=0)
    adam_beta1: float = bounded(0.9, ge=0, lt=1)
    adam_beta2: float = bounded(0.95, ge=0, lt=1)
    weight_decay: float = bounded(0.0, ge=0, lt=10)
    adam_weight_decay: float = bounded(0.0, ge=0, lt=10)
    weight_decay_final: float = bounded(1.0, ge=0, le=10)
    weight_decay_taper: float = bounded(0.3, ge=0, le=1)
    gradient_clip: float = bounded(0.0, ge=0)
    clip_before_reduction: bool = False
    grokfast_weight: float = bounded(0.0, ge=0)
    grokfast_decay: float = bounded(0.98, ge=0, lt=1)
    warmdown_shape: Literal["linear", "cosine"] = "linear"
    warmdown_fraction: float = bounded(0.0, ge=0, le=1)
    min_lr_fraction: float = bounded(0.0, ge=0, le=1)
    average: Literal["ema", "swa", "none"] = "none"
    ema_decay: float = bounded(0.997, ge=0, lt=1)
    swa_start: float = bounded(0.2, ge=0, le=1)
    swa_every: int = bounded(50, ge=1)
    recurrence_start: float = bounded(0.0, ge=0, lt=1)
    mtp_heads: int = bounded(0, ge=0, le=16)
    mtp_weight: float = bounded(0.15, ge=0)
    distill_weight: float = bounded(0.0, ge=0)
    distill_temperature: float = bounded(1.6, gt=0)
    distill_start: float = bounded(0.35, ge=0, le=1)
    distill_every: int = bounded(16, ge=1)
    precision: Literal["auto", "bf16", "fp32"] = "fp32"
    compile: bool = False
    checkpoint_seconds: float = bounded(60.0, gt=0)

    def __post_init__(self):
        for name in ("tokens_per_step", "tokens_per_pass"):
            if getattr(self, name) % self.sequence_length:
                raise InputError(
                    f"train.{name} {getattr(self, name)} is not a multiple of train.sequence_length "
                    f"{self.sequence_length}; it is a whole number of sequences"
                )
        if self.mtp_heads >= self.sequence_length:
            raise InputError(f"train.mtp_heads {self.mtp_heads} looks beyond train.sequence_length {self.sequence_length}")
        if self.distill_weight and self.average != "ema":
            raise InputError(
                f"train.distill_weight needs train.average ema, whose weights are the teacher; found {self.average}"
            )

    @property
    def sequences_per_step(self) -> int:
        return self.tokens_per_step // self.sequence_length

    def passes(self, world_size: int) -> int:
        """The number of equal forward passes per step and rank. Raises InputError when the ranks cannot share a step."""
        if self.sequences_per_step % world_size:
            raise InputError(
                f"train.tokens_per_step {self.tokens_per_step} is {self.sequences_per_step} sequences of "
                f"{self.sequence_length}, which {world_size} ranks cannot share equally"
            )
        sequences = self.sequences_per_step // world_size
        at_once = self.tokens_per_pass // self.sequence_length
        return next(passes for passes in range(1, sequences + 1) if sequences % passes == 0 and sequences // passes <= at_once)


PLAIN_GRIDS = {  # the values of `quant` that training can reproduce; it ignores that some layers have other bits
    "allocation": "uniform",
    "target_bytes": 0,
    "trellis": 0,
    "rotation": "none",
    "per_tensor": False,
    "scale_floor": False,
}


@dataclass(frozen=True)
class Qat:
    """Quantization-aware training; bits and clips must equal those of the section `quant` (see `check`)."""

    start: float = bounded(0.0, ge=0, le=1)
    bits: int = bounded(6, ge=2, le=8)
    clip: float = bounded(12.85, gt=0, le=1000)
    embedding_bits: int = bounded(6, ge=2, le=8)
    embedding_clip: float = bounded(20.0, gt=0, le=1000)
    penalty_start: float = bounded(0.3, ge=0, le=1)
    entropy_weight: float = bounded(0.0, ge=0)
    crown_weight: float = bounded(0.0, ge=0)
    prune_fraction: float = bounded(0.0, ge=0, lt=1)
    prune_start: float = bounded(0.5, ge=0, lt=1)
    prune_every: int = bounded(16, ge=1)

    def check(self, quant) -> None:
        """Raises InputError when training would assume another grid than the section `quant` makes."""
        if not (self.start or self.entropy_weight or self.crown_weight):
            return
        if wrong := [name for name, plain in PLAIN_GRIDS.items() if getattr(quant, name) != plain]:
            expected = ", ".join(f"quant.{name} {str(PLAIN_GRIDS[name]).lower()}" for name in wrong)
            raise InputError(
                f"qat trains for plain grids of bits and clip only; expected {expected} (or qat.start, entropy_weight and "
                "crown_weight 0)"
            )
        grids = {
            "bits": (self.bits, quant.bits_of("attention", None, 1)),
            "embedding_bits": (self.embedding_bits, quant.bits_of("embedding", None, 1)),
        }
        if quant.clip_rule == "deviation":  # a clip found by a search is not known before training
            grids |= {"clip": (self.clip, quant.clip), "embedding_clip": (self.embedding_clip, quant.embedding_clip)}
        for name, (trained_for, found) in grids.items():
            if trained_for != found:
                raise InputError(
                    f"qat.{name} is {trained_for} and the quant section makes it {found}; training assumes the grid it will be "
                    "put on only if they are equal (or qat.start, entropy_weight and crown_weight are 0)"
                )


@dataclass(frozen=True)
class PrequantTtt:
    source: Literal["holdout", "train", "val", "none"] = "none"
    epochs: int = bounded(1, ge=1, le=100)
    lr: float = bounded(0.0005, gt=0, le=1)
    first_block: float = bounded(1.0, ge=0, le=1)
    freeze_blocks: int = bounded(0, ge=0)
    final_lr_fraction: float = bounded(0.1, ge=0, le=1)
    sequences_per_step: int = bounded(16, ge=1)
    max_tokens: int = bounded(10_000_000, ge=2)
    gradient_clip: float = bounded(0.0, ge=0)
