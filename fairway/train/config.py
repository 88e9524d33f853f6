"""The sections `train` and `prequant_ttt`."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Train:
    seed: int = bounded(ge=0)
    steps: int = bounded(ge=1)
    wall_clock_seconds: float = bounded(gt=0)
    tokens_per_step: int = bounded(ge=2)
    sequence_length: int = bounded(ge=2)
    muon_lr: float = bounded(gt=0, le=1)
    embedding_lr: float = bounded(gt=0, le=1)
    scalar_lr: float = bounded(gt=0, le=1)
    momentum: float = bounded(ge=0, lt=1)
    momentum_warmup_steps: int = bounded(ge=0)
    weight_decay: float = bounded(ge=0, lt=10)
    gradient_clip: float = bounded(ge=0)
    warmdown_fraction: float = bounded(ge=0, le=1)
    ema_decay: float = bounded(ge=0, lt=1)
    precision: Literal["auto", "bf16", "fp32"]
    compile: bool
    checkpoint_seconds: float = bounded(gt=0)

    def __post_init__(self):
        if self.tokens_per_step % self.sequence_length:
            raise InputError(
                f"train.tokens_per_step {self.tokens_per_step} is not a multiple of train.sequence_length "
                f"{self.sequence_length}; a step is a whole number of sequences"
            )


@dataclass(frozen=True)
class PrequantTtt:
    source: Literal["holdout", "train", "val", "none"]
    epochs: int = bounded(ge=1, le=100)
    lr: float = bounded(gt=0, le=1)
    first_block: float = bounded(ge=0, le=1)
    final_lr_fraction: float = bounded(ge=0, le=1)
    sequences_per_step: int = bounded(ge=1)
    max_tokens: int = bounded(ge=2)
    gradient_clip: float = bounded(ge=0)
