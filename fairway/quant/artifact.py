"""The file of a quantised network: safetensors with the architecture and the bits inside.

A quantised matrix is "<name>.integers" (int8) and "<name>.scales" (fp16), any other tensor "<name>" (fp16). All metadata
is one JSON text under one key: safetensors 0.8 writes several keys in an order that changes from process to process,
and the same network must be the same bytes.
"""

import dataclasses
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.quant.quantiser import QuantisedMatrix


def to_tensors(
    architecture: Architecture, matrices: dict[str, QuantisedMatrix], small: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The flat tensors and the metadata {"quantised": JSON of architecture and bits by name} of the file."""
    tensors = {name: tensor.contiguous() for name, tensor in small.items()}
    for name, matrix in matrices.items():
        tensors[f"{name}.integers"] = matrix.integers.contiguous()
        tensors[f"{name}.scales"] = matrix.scales
    header = {
        "architecture": dataclasses.asdict(architecture),
        "bits": {name: matrix.bits for name, matrix in matrices.items()},
    }
    return tensors, {"quantised": json.dumps(header, sort_keys=True)}


def from_tensors(
    tensors: dict[str, Tensor], metadata: dict[str, str]
) -> tuple[Architecture, dict[str, QuantisedMatrix], dict[str, Tensor]]:
    """The inverse of `to_tensors`, names sorted. Raises KeyError when something that the metadata names is missing."""
    header = json.loads(metadata["quantised"])
    matrices = {
        name: QuantisedMatrix(tensors[f"{name}.integers"], tensors[f"{name}.scales"], bits)
        for name, bits in sorted(header["bits"].items())
    }
    parts = {f"{name}.{part}" for name in matrices for part in ("integers", "scales")}
    small = {name: tensors[name] for name in sorted(tensors.keys() - parts)}
    return Architecture(**header["architecture"]), matrices, small


def save(path: Path | str, architecture: Architecture, matrices: dict[str, QuantisedMatrix], small: dict[str, Tensor]) -> None:
    tensors, metadata = to_tensors(architecture, matrices, small)
    save_file({name: tensor.cpu() for name, tensor in tensors.items()}, path, metadata=metadata)


def load(path: Path | str) -> tuple[Architecture, dict[str, QuantisedMatrix], dict[str, Tensor]]:
    """Architecture, quantised matrices and fp16 tensors by name. Raises InputError when the file is damaged or foreign."""
    try:
        with safe_open(path, framework="pt") as file:
            return from_tensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a quantised network ({error}); run `dvc repro` to write it again") from None
