"""The section `certify`: how many tokens are coded, and the limits that a score must keep."""

from dataclasses import dataclass
from typing import Any

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Certify:
    """`tokens` is a whole number or "all", which pydantic's bounds cannot express; `__post_init__` checks it."""

    tokens: Any = bounded(default=None)  # noqa: RUF009
    causality_tokens: int = bounded(ge=2)
    causality_checks: int = bounded(ge=1, le=1000)
    val_documents: int = bounded(ge=0)
    train_seconds: int = bounded(ge=0)
    eval_seconds: int = bounded(ge=0)

    def __post_init__(self):
        if self.tokens != "all" and (type(self.tokens) is not int or self.tokens < 1):
            found = "missing" if self.tokens is None else repr(self.tokens)
            raise InputError(f'certify.tokens is {found}; expected a whole number at least 1, or "all"')

    def wanted(self, targets: int) -> int:
        """How many tokens to code of a validation text of `targets` tokens."""
        return targets if self.tokens == "all" else min(self.tokens, targets)
