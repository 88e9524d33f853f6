"""What a parameter of the network is: one table, read by initialization, optimizers, quantization, LoRA and the report.

A parameter is known by its name, as in `named_parameters` and in every file, and by its shape. One that needs nothing
special needs no row: the weight of a linear layer is a matrix, everything else a vector. This module imports no torch.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

EMBEDDING, LM_HEAD = "stream.embedding.weight", "unembedding.weight"
FP16_ELEMENTS = 4096  # up to here the step scales and the coder's learning cost more than the integers save
BLOCK = re.compile(r"(?:model\.)?blocks\.(\d+)\.")  # training's names start with "model."

Kind = Literal["matrix", "table", "head", "vector"]
Role = Literal["embedding", "attention", "feed_forward", "projection", "fp16"]


class Group(NamedTuple):
    """What parameters of one kind have in common. The rates are keys of the section `train`, after #549's groups."""

    optimizer: Literal["muon", "adamw"]
    lr: str
    weight_decay: str
    initial: str | float  # "orthogonal", "zero", "built", or the deviation of a normal distribution


# Projections of narrow tables are matrices here, though the published code leaves them to AdamW.
GROUPS: dict[Kind, Group] = {
    "matrix": Group("muon", "muon_lr", "weight_decay", "orthogonal"),
    "table": Group("adamw", "embedding_lr", "adam_weight_decay", 0.01),
    "head": Group("adamw", "head_lr", "adam_weight_decay", "zero"),
    "vector": Group("adamw", "scalar_lr", "adam_weight_decay", "built"),
}


class Row(NamedTuple):
    """What is special about the parameters whose names match; None where the shape decides."""

    names: str  # pattern of fnmatch
    kind: Kind | None = None
    initial: str | float | None = None
    lora: str | None = None  # the target of `ttt.lora_targets`
    text_gradient: bool = True  # whether the loss of the text has a gradient for it


# The first row that matches counts. Outputs start at zero, so that every block starts as the identity (#549).
TABLE = (
    Row("*stream.embedding.weight", "table", initial=0.005),
    Row("*.table.weight", "table"),
    Row("*unembedding.weight", "head", lora="head"),
    Row("heads.*", "head", initial="built"),  # of multi-token prediction, in training only
    Row("*.attention.query.weight", lora="query"),
    Row("*.attention.key.weight", lora="key"),
    Row("*.attention.value.weight", lora="value"),
    Row("*.attention.output.weight", lora="output", initial="zero"),
    Row("*.feed_forward.down.weight", lora="feed_forward", initial="zero"),
    Row("*.feed_forward.*.weight", lora="feed_forward"),
    Row("*.router.direction_D", initial="unit"),
    Row("*.router.threshold", text_gradient=False),
)
ORDINARY = Row("*")
# Of the two factors of the hashed bigrams one starts at zero: the table of "xor" (#549), the projection of "linear" (#861).
ZERO_OF_BIGRAM_HASH = {"xor": "stream.bigram.table.weight", "linear": "stream.bigram.projection.weight"}


def row_of(name: str) -> Row:
    return next((row for row in TABLE if fnmatchcase(name, row.names)), ORDINARY)


def kind_of(name: str, shape: Sequence[int]) -> Kind:
    """Stacks of per-channel vectors (2-D but centered on one, not on zero) are vectors: their names do not end in "weight"."""
    return row_of(name).kind or ("matrix" if len(shape) == 2 and name.endswith(".weight") else "vector")


def initial_of(name: str, shape: Sequence[int], bigram_hash: str) -> str | float:
    """Where training starts: "zero", "orthogonal", "unit" (an expected norm of 1), "built", or a standard deviation."""
    if name == ZERO_OF_BIGRAM_HASH[bigram_hash]:
        return "zero"
    special = row_of(name).initial
    return GROUPS[kind_of(name, shape)].initial if special is None else special


def role_of(name: str, shape: Sequence[int]) -> Role:
    """What quantization makes of it; training asks as well, so that it foresees the right grids.

    "embedding" (tables and the head), "attention", "feed_forward" and "projection" (of narrow tables) become integers.
    """
    kind = kind_of(name, shape)
    if kind == "vector" or shape[0] * shape[1] <= FP16_ELEMENTS:
        return "fp16"
    if kind != "matrix":
        return "embedding"
    return next((role for role in ("attention", "feed_forward") if f".{role}." in name), "projection")


def layer_of(name: str) -> int | None:
    """The layer that a parameter belongs to, counted from 0; None outside the blocks."""
    block = BLOCK.match(name)
    return int(block[1]) if block else None


def module_of(name: str) -> str:
    """Where a tensor stands, for people: "block 3", "embedding", "bigram", "lm_head", ..."""
    if (layer := layer_of(name)) is not None:
        return f"block {layer}"
    return "lm_head" if name == LM_HEAD else name.removeprefix("stream.").split(".")[0]


def of_feed_forward(name: str) -> bool:
    """Whether it is part of a feed-forward layer, or the scales per channel through which that returns."""
    return ".feed_forward" in name
