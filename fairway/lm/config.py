"""The `model` section: what the network looks like. Stored inside every checkpoint and inside the artifact.

Layers count from 0; in lists of layers, −1 is the last one, as in Python, so that a list suits any depth.
"""

from dataclasses import dataclass
from typing import Literal

from fairway.bounds import bounded
from fairway.errors import InputError


def check_layers(name: str, chosen: list[int], layers: int) -> None:
    """Raises InputError unless a list of layers names layers of the stack, each once."""
    if not all(-layers <= layer < layers for layer in chosen):
        raise InputError(f"{name} is {chosen}; a stack of {layers} has layers 0 to {layers - 1}")
    if len({layer % layers for layer in chosen}) < len(chosen):
        raise InputError(f"{name} is {chosen}; expected each layer once")


@dataclass(frozen=True)
class Model:
    """Sizes and switches of the network; by default a plain decoder. Sources: #549, #598, #861, #885, #1185, #1406."""

    layers: int = bounded(6, ge=1, le=256)
    width: int = bounded(256, ge=16, le=16384)
    heads: int = bounded(4, ge=1)
    kv_heads: int = bounded(4, ge=1)
    mlp_multiple: float = bounded(2.0, gt=0, le=16)
    activation: Literal["leaky_relu2", "star_relu", "swiglu", "square_glu"] = "leaky_relu2"
    leaky_slope: float = bounded(0.0, ge=0, le=1)
    rope_dims: int = bounded(64, ge=0, multiple_of=2)
    rope_base: float = bounded(10000.0, gt=1)
    rope_base_length: int = bounded(0, ge=0)
    qk_gain: float = bounded(1.0, gt=0)
    xsa_layers: int = bounded(0, ge=0)
    gated_attention: bool = False
    value_residual: bool = False
    value_embedding_layers: list[int] = bounded([])
    value_embedding_width: int = bounded(64, ge=1)
    unet_skips: Literal["none", "plain", "gated"] = "none"
    residual_mix: bool = False
    depth_scale: bool = False
    recurrence: Literal["none", "append", "insert"] = "none"
    recurrence_layers: list[int] = bounded([])
    recurrence_passes: int = bounded(2, ge=2, le=16)
    mod_layers: list[int] = bounded([])
    mod_capacity: float = bounded(0.5, gt=0, le=1)
    bigram_hash: Literal["xor", "linear"] = "xor"
    bigram_buckets: int = bounded(0, ge=0)
    bigram_width: int = bounded(64, ge=1)
    smear_gate: bool = False
    tied_embeddings: bool = True
    logit_softcap: float = bounded(30.0, gt=0)

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(f"model.width {self.width} is not divisible by model.heads {self.heads}")
        if self.heads % self.kv_heads:
            raise InputError(f"model.heads {self.heads} is not divisible by model.kv_heads {self.kv_heads}")
        if self.rope_dims > self.head_width:
            raise InputError(f"model.rope_dims {self.rope_dims} exceeds the width of a head, {self.head_width}")
        if self.rope_base_length and self.rope_dims == 2:
            raise InputError("model.rope_dims is 2; expected at least 4 where model.rope_base_length scales the base, or 0")
        if self.xsa_layers > self.layers:
            raise InputError(f"model.xsa_layers {self.xsa_layers} exceeds model.layers {self.layers}")
        if self.bigram_buckets == 1:
            raise InputError("model.bigram_buckets is 1; expected 0 (off) or at least 2, one of them for the start")
        recurrent = ["recurrence_layers"] if self.recurrence != "none" else []
        for name in ("value_embedding_layers", "mod_layers", *recurrent):
            check_layers(f"model.{name}", getattr(self, name), self.layers)
        if recurrent:
            again = self.at(self.recurrence_layers)
            if not again or again != list(range(again[0], again[0] + len(again))):
                raise InputError(
                    f"model.recurrence_layers is {self.recurrence_layers}; "
                    f"expected at least one layer, consecutive, for model.recurrence {self.recurrence}"
                )

    def at(self, layers: list[int]) -> list[int]:
        """The same layers counted from the first."""
        return [layer % self.layers for layer in layers]

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.head_width

    @property
    def mlp_width(self) -> int:
        return int(self.width * self.mlp_multiple)

    def schedule(self, recurrent: bool) -> tuple[list[int], list[int]]:
        """The layers of the U-Net in the order in which they run, and the layers that run again after it.

        Inserted passes (the SP8192 record) are part of the U-Net and move its middle; appended ones (#1406) are not.
        """
        once = list(range(self.layers))
        if not recurrent or self.recurrence == "none":
            return once, []
        again = self.at(self.recurrence_layers) * (self.recurrence_passes - 1)
        if self.recurrence == "append":
            return once, again
        end = self.at(self.recurrence_layers)[-1] + 1
        return once[:end] + again + once[end:], []

    @property
    def skips(self) -> int:
        """The number of skip connections of the U-Net: layers in its first half, all passes counted."""
        return 0 if self.unet_skips == "none" else len(self.schedule(recurrent=True)[0]) // 2


@dataclass(frozen=True, kw_only=True)
class Architecture(Model):
    """The `model` section plus what the data and the training decide: all that is needed to build the network."""

    vocabulary_size: int = bounded(ge=2)
    bos: int = bounded(ge=0)
    sequence_length: int = bounded(ge=2)

    @property
    def scaled_rope_base(self) -> float:
        """NTK-aware scaling: training on sequences longer than `rope_base_length` slows the slow rotations (#549's "YARN").

        It depends only on the training length: if evaluation at another length changed it, scores would fall apart (2.11
        bpb, #549's notes).
        """
        if not self.rope_base_length or self.rope_dims <= 2:
            return self.rope_base
        stretch = max(1.0, self.sequence_length / self.rope_base_length)
        return self.rope_base * stretch ** (self.rope_dims / (self.rope_dims - 2))
