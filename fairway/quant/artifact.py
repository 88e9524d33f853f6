"""The file of a quantised network: safetensors with the architecture and what its matrices are inside.

A quantised matrix is "<name>.integers" (int8) and "<name>.scales" (fp16), the factors of its repair "<name>.left…" and
"<name>.right…", any other tensor "<name>" (fp16). All metadata is one JSON text under one key: safetensors 0.8 writes
several keys in an order that changes from process to process, and the same network must be the same bytes.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.quant.matrix import QuantisedMatrix

Tensors = dict[str, np.ndarray]


def to_tensors(
    architecture: Architecture, matrices: dict[str, QuantisedMatrix], small: Tensors
) -> tuple[Tensors, dict[str, str]]:
    """The flat tensors and the metadata {"quantised": JSON of the architecture and the grids by name} of the file."""
    tensors, grids = {name: np.asarray(values, order="C") for name, values in small.items()}, {}
    for name, matrix in matrices.items():
        grids[name] = {"bits": matrix.bits, "states": matrix.states, "rotation": matrix.rotation}
        tensors |= {f"{name}.integers": np.ascontiguousarray(matrix.integers), f"{name}.scales": matrix.scales}
        if matrix.repair:
            grids[name]["repair_bits"] = matrix.repair[0].bits
            for side, factor in zip(("left", "right"), matrix.repair, strict=True):
                tensors |= {
                    f"{name}.{side}.integers": np.ascontiguousarray(factor.integers),
                    f"{name}.{side}.scales": factor.scales,
                }
    header = {"architecture": dataclasses.asdict(architecture), "matrices": grids}
    return tensors, {"quantised": json.dumps(header, sort_keys=True)}


def from_tensors(tensors: Tensors, metadata: dict[str, str]) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """The inverse of `to_tensors`, names sorted. Raises KeyError when something that the metadata names is missing."""
    header, rest = json.loads(metadata["quantised"]), dict(sorted(tensors.items()))
    matrices = {}
    for name, grid in sorted(header["matrices"].items()):
        repair_bits = grid.pop("repair_bits", 0)
        pair = [_take(rest, f"{name}.{side}", bits=repair_bits) for side in ("left", "right")] if repair_bits else None
        matrices[name] = dataclasses.replace(_take(rest, name, **grid), repair=pair and tuple(pair))
    return Architecture(**header["architecture"]), matrices, rest


def _take(tensors: Tensors, name: str, **grid: int) -> QuantisedMatrix:
    return QuantisedMatrix(tensors.pop(f"{name}.integers"), tensors.pop(f"{name}.scales"), **grid)


def save(path: Path | str, architecture: Architecture, matrices: dict[str, QuantisedMatrix], small: Tensors) -> None:
    tensors, metadata = to_tensors(architecture, matrices, small)
    save_file(tensors, path, metadata=metadata)


def load(path: Path | str) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """Architecture, quantised matrices and fp16 tensors by name. Raises InputError when the file is damaged or foreign."""
    try:
        with safe_open(path, framework="np") as file:
            return from_tensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not a quantised network ({error}); run `dvc repro` to write it again") from None
