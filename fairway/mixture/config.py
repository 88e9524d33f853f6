"""The sections `cache` and `ngram`: what is mixed with the network, and how."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Cache:
    """The continuous cache; off at 0 tokens."""

    tokens: int = bounded(ge=0)
    sharpness: float = bounded(gt=0, le=1000)
    weight: float = bounded(gt=0, lt=1)


@dataclass(frozen=True)
class Ngram:
    mixture: Literal["tree", "linear", "entropy", "fixed", "tilt", "none"]
    estimator: Literal["interpolated", "kneser_ney", "add_one", "hashed_ratio"]
    max_order: int = bounded(ge=1, le=9)
    discounts: list[float]
    table_entries: int = bounded(ge=1024, le=1 << 31)
    update_tokens: int = bounded(ge=1)
    learning_rate: float = bounded(ge=0, le=10)
    entropy_bins: int = bounded(ge=1, le=64)
    neural_weight: float = bounded(gt=0, lt=1)
    tilt: float = bounded(ge=0, le=20)

    def __post_init__(self):
        if len(self.discounts) != 3 or not all(0 <= d <= count for d, count in zip(self.discounts, (1, 2, 3), strict=True)):
            raise InputError(
                f"ngram.discounts is {self.discounts}; expected three, of counts 1, 2 and more: from 0 to 1, to 2 and to 3"
            )
        if self.mixture == "tree" and self.update_tokens > 1:
            raise InputError(f"ngram.update_tokens is {self.update_tokens}; expected 1 with ngram.mixture tree")
