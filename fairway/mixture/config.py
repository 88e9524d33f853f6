"""The sections `cache` and `ngram`: what is mixed with the network, and how."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Cache:
    """The continuous cache; off at 0 tokens."""

    tokens: int = bounded(0, ge=0)
    sharpness: float = bounded(70.0, gt=0, le=1000)
    weight: float = bounded(0.2, gt=0, lt=1)


@dataclass(frozen=True)
class Ngram:
    """The mixture with statistics of the text so far; off with mixture none."""

    mixture: Literal["tree", "linear", "entropy", "fixed", "tilt", "none"] = "none"
    estimator: Literal["interpolated", "kneser_ney", "add_one", "hashed_ratio"] = "kneser_ney"
    max_order: int = bounded(6, ge=1, le=9)
    discounts: list[float] = bounded([0.3, 0.2, 0.2])
    table_entries: int = bounded(20_000_000, ge=1024, le=1 << 31)
    update_tokens: int = bounded(1, ge=1)
    learning_rate: float = bounded(0.004, ge=0, le=10)
    entropy_bins: int = bounded(12, ge=1, le=64)
    neural_weight: float = bounded(0.95, gt=0, lt=1)
    tilt: float = bounded(0.5, ge=0, le=20)

    def __post_init__(self):
        if len(self.discounts) != 3 or not all(0 <= d <= count for d, count in zip(self.discounts, (1, 2, 3), strict=True)):
            raise InputError(
                f"ngram.discounts is {self.discounts}; expected three, of counts 1, 2 and more: from 0 to 1, to 2 and to 3"
            )
        if self.mixture == "tree" and self.update_tokens > 1:
            raise InputError(f"ngram.update_tokens is {self.update_tokens}; expected 1 with ngram.mixture tree")
