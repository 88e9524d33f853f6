"""The sections `eval` and `ttt`, and all settings of the predictor, which are sealed into the artifact."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError
from fairway.mixture.config import Cache, Ngram
from fairway.score.optimizers import OPTIMIZERS

ADAPTABLE = ("query", "key", "value", "output", "feed_forward", "head")  # what LoRA adapters can be put on


@dataclass(frozen=True)
class Eval:
    method: Literal["streaming", "windows"]
    context: int = bounded(ge=2)
    stride: int = bounded(ge=1)
    block: int = bounded(ge=1)
    batch: int = bounded(ge=1)
    segment_tokens: int = bounded(ge=0)
    reset: Literal["never", "document"]
    allow_long_context: bool

    def check(self, sequence_length: int) -> None:
        """Raises InputError when the context is longer than the network was trained for (DESIGN 3.2)."""
        if self.context > sequence_length and not self.allow_long_context:
            raise InputError(
                f"eval.context {self.context} exceeds the training length {sequence_length}, where scores fall apart; "
                "lower it, or set eval.allow_long_context: true"
            )
        if self.method == "windows" and self.stride > self.context:
            raise InputError(f"eval.stride {self.stride} exceeds eval.context {self.context}: tokens would be skipped")


@dataclass(frozen=True)
class Ttt:
    optimizer: Literal[*OPTIMIZERS, "none"]
    parameters: Literal["all", "feed_forward", "lora"]
    freeze_blocks: int = bounded(ge=0)
    first_block: float = bounded(ge=0, le=1)
    reset: Literal["never", "document"]
    chunk_tokens: int = bounded(ge=2)
    epochs: int = bounded(ge=1, le=100)
    adaptive_epochs: bool
    sequences_per_step: int = bounded(ge=1)
    lr: float = bounded(ge=0, le=1)
    schedule: Literal["constant", "cosine"]
    momentum: float = bounded(ge=0, lt=1)
    weight_decay: float = bounded(ge=0, le=10)
    gradient_clip: float = bounded(ge=0)
    lora_rank: int = bounded(ge=1, le=1024)
    lora_alpha: float = bounded(gt=0)
    lora_targets: list[str]

    def __post_init__(self):
        for target in self.lora_targets:
            if target not in ADAPTABLE:
                raise InputError(f"ttt.lora_targets names '{target}'; expected some of {', '.join(ADAPTABLE)}")


@dataclass(frozen=True)
class Settings:
    """What turns the network into a predictor. All but `eval` may be switched off by their own first key."""

    eval: Eval
    ttt: Ttt
    cache: Cache
    ngram: Ngram

    @classmethod
    def from_json(cls, content: dict) -> "Settings":
        return cls(Eval(**content["eval"]), Ttt(**content["ttt"]), Cache(**content["cache"]), Ngram(**content["ngram"]))
