"""The `compress` section: how weights are coded, and how large the whole submission may be."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded


@dataclass(frozen=True)
class Compress:
    """`budget_bytes` counts all of `submission.pyz`: runtime code, tokenizer and weights."""

    coder: Literal["range", "zstd", "lzma", "brotli"] = "range"
    budget_bytes: int = bounded(16_000_000, ge=1)
