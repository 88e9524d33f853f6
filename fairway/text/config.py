"""The `data` and `tokenize` sections: which documents there are, how they are split, and how text becomes tokens."""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Data:
    """The documents: globs, relative to the repository's root, of .jsonl, .jsonl.zst, .jsonl.gz, .txt or .parquet files."""

    documents: list[str] = bounded(["data/*.jsonl.zst"])
    text_field: str = bounded("text", min_length=1)


@dataclass(frozen=True)
class Tokenize:
    """How documents become token shards, and which of them stay text that no stage but certify reads (the witness).

    With `source: shards`, the globs `shards_train` and `shards_val` name ready-made shards in the challenge's format, and
    `shards_tokenizer` names the SentencePiece model that made them (not read with `tokenizer: bytes`, the challenge's
    byte260). Val is copied unchanged, so `val_fraction`, `vocabulary_size` and `sample_bytes` are not read either. The byte
    vocabulary always has 260 tokens.
    """

    source: Literal["documents", "shards"] = "documents"
    tokenizer: Literal["bpe", "bytes"] = "bpe"
    vocabulary_size: int = bounded(1024, ge=260, le=65535)
    holdout_fraction: float = bounded(0.05, gt=0, le=0.5)
    val_fraction: float = bounded(0.05, gt=0, le=0.5)
    witness_fraction: float = bounded(0.0, ge=0, le=0.5)
    sample_bytes: int = bounded(20_000_000, ge=1)
    shard_tokens: int = bounded(100_000_000, ge=1, le=2**31 - 1)
    shards_train: list[str] = bounded([])
    shards_val: list[str] = bounded([])
    shards_tokenizer: str = ""

    def __post_init__(self):
        if self.holdout_fraction + self.val_fraction + self.witness_fraction >= 1:
            raise InputError(
                f"tokenize.holdout_fraction {self.holdout_fraction}, tokenize.val_fraction {self.val_fraction} and "
                f"tokenize.witness_fraction {self.witness_fraction} leave no text for train; their sum must be below 1"
            )
        if self.source == "shards" and self.tokenizer == "bpe" and not self.shards_tokenizer:
            raise InputError("tokenize.shards_tokenizer is empty; tokenize.source 'shards' needs its tokenizer's .model file")
