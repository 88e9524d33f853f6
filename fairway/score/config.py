"""The sections `eval`, `ttt` and `ngram`: together they are the settings of the predictor, sealed into the artifact."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Eval:
    method: Literal["streaming", "windows"]
    context: int = bounded(ge=2)
    stride: int = bounded(ge=1)
    block: int = bounded(ge=1)
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
    optimizer: Literal["adamw", "sgd", "none"]
    chunk_tokens: int = bounded(ge=2)
    epochs: int = bounded(ge=1, le=100)
    sequences_per_step: int = bounded(ge=1)
    lr: float = bounded(ge=0, le=1)
    momentum: float = bounded(ge=0, lt=1)
    gradient_clip: float = bounded(ge=0)


@dataclass(frozen=True)
class Ngram:
    mixture: Literal["linear", "none"]
    max_order: int = bounded(ge=1, le=9)
    discount: float = bounded(gt=0, lt=1)
    learning_rate: float = bounded(gt=0, le=10)
    entropy_bins: int = bounded(ge=1, le=64)
    neural_weight: float = bounded(gt=0, lt=1)


@dataclass(frozen=True)
class Settings:
    """What turns the network into a predictor. `ttt` and `ngram` may be switched off by their own first key."""

    eval: Eval
    ttt: Ttt
    ngram: Ngram

    @classmethod
    def from_json(cls, content: dict) -> "Settings":
        return cls(Eval(**content["eval"]), Ttt(**content["ttt"]), Ngram(**content["ngram"]))
