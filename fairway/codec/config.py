"""The `compress` section: how large the whole submission may be."""

from dataclasses import dataclass

from fairway.bounds import bounded


@dataclass(frozen=True)
class Compress:
    """`budget_bytes` counts all of `submission.pyz`: runtime code, tokenizer and weights."""

    budget_bytes: int = bounded(ge=1)
