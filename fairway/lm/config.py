"""The `model` section: what the network looks like. Stored inside every checkpoint and inside the artifact."""

from dataclasses import dataclass

from fairway.bounds import bounded
from fairway.errors import InputError


@dataclass(frozen=True)
class Model:
    """Sizes and switches of the network; sources in reference order: #549, #885, #1185, #1406."""

    layers: int = bounded(ge=1, le=256)
    width: int = bounded(ge=16, le=16384)
    heads: int = bounded(ge=1)
    kv_heads: int = bounded(ge=1)
    mlp_multiple: float = bounded(gt=0, le=16)
    leaky_slope: float = bounded(ge=0, le=1)
    rope_dims: int = bounded(ge=0, multiple_of=2)
    rope_base: float = bounded(gt=1)
    qk_gain: float = bounded(gt=0)
    xsa_layers: int = bounded(ge=0)
    unet_skips: bool
    bigram_buckets: int = bounded(ge=0)
    bigram_width: int = bounded(ge=1)
    smear_gate: bool
    logit_softcap: float = bounded(gt=0)

    def __post_init__(self):
        if self.width % self.heads:
            raise InputError(f"model.width {self.width} is not divisible by model.heads {self.heads}")
        if self.heads % self.kv_heads:
            raise InputError(f"model.heads {self.heads} is not divisible by model.kv_heads {self.kv_heads}")
        if self.rope_dims > self.head_width:
            raise InputError(f"model.rope_dims {self.rope_dims} exceeds the width of a head, {self.head_width}")
        if self.xsa_layers > self.layers:
            raise InputError(f"model.xsa_layers {self.xsa_layers} exceeds model.layers {self.layers}")
        if self.bigram_buckets == 1:
            raise InputError("model.bigram_buckets is 1; expected 0 (off) or at least 2, one of them for the start")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def mlp_width(self) -> int:
        return int(self.width * self.mlp_multiple)


@dataclass(frozen=True)
class Architecture(Model):
    """The `model` section with what the data and the training decide: all that is needed to build the network."""

    vocabulary_size: int = bounded(ge=2)
    bos: int = bounded(ge=0)
    sequence_length: int = bounded(ge=2)
