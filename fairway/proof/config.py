"""The section `certify`: how many tokens are coded, and the limits that a score must keep."""

from dataclasses import dataclass
from typing import Any

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Certify:
    """`tokens` is a whole number or "all", which pydantic's bounds cannot express; `__post_init__` checks it."""

    tokens: Any = "all"
    causality_tokens: int = bounded(4000, ge=2)
    causality_checks: int = bounded(4, ge=1, le=1000)
    val_documents: int = bounded(0, ge=0)
    coding_seconds: int = bounded(7200, ge=1)
    near_duplicates: float = bounded(0.05, ge=0, le=1)
    train_seconds: int = bounded(0, ge=0)
    eval_seconds: int = bounded(0, ge=0)

    def __post_init__(self):
        if self.tokens != "all" and (type(self.tokens) is not int or self.tokens < 1):
            raise InputError(f'certify.tokens is {self.tokens!r}; expected a whole number at least 1, or "all"')

    def wanted(self, targets: int) -> int:
        """How many tokens to code of a validation text of `targets` tokens."""
        return targets if self.tokens == "all" else min(self.tokens, targets)
