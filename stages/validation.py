"""What the evaluation stages share: reading the validation stream and the decoded artifact, and writing the scores."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fairway.codec.network import model_from
from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.score.bits import bits_per_byte
from fairway.score.files import table
from fairway.text.byte_count import table_bytes
from fairway.text.shards import read_split
from fairway.text.tokenizer import read_tokenizer
from stages.common import ARTIFACTS, write_array


class Validation(NamedTuple):
    """The validation stream, and the bytes that each token of the vocabulary spells."""

    tokens: np.ndarray  # uint16, the first is BOS
    token_bytes: np.ndarray  # int64 (V,)
    bos: int

    @property
    def text_bytes(self) -> int:
        return int(self.token_bytes[self.tokens[1:]].sum())

    def bpb(self, nats: np.ndarray) -> float:
        return bits_per_byte(nats, self.text_bytes)


def read_validation(context: int) -> Validation:
    """Read the validation stream. Raises InputError if it is not longer than one context."""
    tokenizer = read_tokenizer(ARTIFACTS / "tokenize/tokenizer.model")
    tokens = read_split(ARTIFACTS / "tokenize/val", tokenizer.vocabulary_size)
    if len(tokens) <= context:
        raise InputError(
            f"artifacts/tokenize/val has {len(tokens):,} tokens and eval.context needs more than {context:,}; "
            "add documents or raise tokenize.val_fraction"
        )
    return Validation(tokens, table_bytes(tokenizer).lossless_bytes, tokenizer.bos)


def decoded_model() -> GPT:
    """The network in model.fwy, on the GPU if there is one."""
    path = ARTIFACTS / "compress/model.fwy"
    return model_from(path.read_bytes(), str(path)).to("cuda" if torch.cuda.is_available() else "cpu")


def write_scores(path: Path, validation: Validation, nats: np.ndarray, entropy: np.ndarray) -> None:
    write_array(path, table(validation.tokens[:], validation.token_bytes, nats, entropy))
