"""The `compress` section: the coder of the weights, and the size limit of the submission."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded


@dataclass(frozen=True)
class Compress:
    """`budget_bytes` limits all of `submission.pyz`: code, tokenizer and weights."""

    coder: Literal["range", "zstd", "lzma", "brotli"] = "range"
    budget_bytes: int = bounded(16_000_000, ge=1)
