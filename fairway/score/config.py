"""The sections `eval` and `ttt`, and all settings of the predictor, which are sealed into the artifact."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded, checked
from fairway.errors import InputError
from fairway.mixture.config import Cache, Ngram
from fairway.score.optimizers import OPTIMIZERS

ADAPTABLE = ("query", "key", "value", "output", "feed_forward", "head")  # what LoRA adapters can be put on


@dataclass(frozen=True)
class Eval:
    """How the validation text is scored: lengths in tokens; `block` and `batch` affect speed only."""

    method: Literal["streaming", "windows"] = "streaming"
    context: int = bounded(256, ge=2)
    stride: int = bounded(64, ge=1)
    block: int = bounded(1024, ge=1)
    batch: int = bounded(1, ge=1)
    segment_tokens: int = bounded(0, ge=0)
    reset: Literal["never", "document"] = "never"
    allow_long_context: bool = False

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
    """Score-first test-time training; off with optimizer none."""

    optimizer: Literal[*OPTIMIZERS, "none"] = "none"
    parameters: Literal["all", "feed_forward", "lora"] = "all"
    freeze_blocks: int = bounded(0, ge=0)
    first_block: float = bounded(1.0, ge=0, le=1)
    reset: Literal["never", "document"] = "never"
    chunk_tokens: int = bounded(512, ge=2)
    epochs: int = bounded(1, ge=1, le=100)
    adaptive_epochs: bool = False
    sequences_per_step: int = bounded(4, ge=1)
    lr: float = bounded(0.001, ge=0, le=1)
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: float = bounded(0.0, ge=0, lt=1)
    weight_decay: float = bounded(0.0, ge=0, le=10)
    gradient_clip: float = bounded(0.0, ge=0)
    lora_rank: int = bounded(16, ge=1, le=1024)
    lora_alpha: float = bounded(32.0, gt=0)
    lora_targets: list[str] = bounded(list(ADAPTABLE))

    def __post_init__(self):
        for target in self.lora_targets:
            if target not in ADAPTABLE:
                raise InputError(f"ttt.lora_targets names '{target}'; expected some of {', '.join(ADAPTABLE)}")


@dataclass(frozen=True)
class Settings:
    """All settings of the predictor. The first key of each section but `eval` switches it off."""

    eval: Eval = Eval()
    ttt: Ttt = Ttt()
    cache: Cache = Cache()
    ngram: Ngram = Ngram()

    def to_json(self) -> dict[str, dict]:
        """The values that are not the defaults, by section: a param takes no room in the artifacts that do not use it."""
        return {
            name: {key: value for key, value in vars(section).items() if value != vars(type(section)())[key]}
            for name, section in vars(self).items()
        }

    @classmethod
    def from_json(cls, content: dict[str, dict]) -> "Settings":
        """The defaults with these values. Raises ValueError or InputError unless their types and ranges are right."""
        sections = vars(cls())
        if not isinstance(content, dict) or content.keys() - sections.keys():
            raise ValueError(f"expected {', '.join(sections)}, found {content!r:.99}")
        return cls(**{name: checked(type(default), content.get(name, {})) for name, default in sections.items()})
