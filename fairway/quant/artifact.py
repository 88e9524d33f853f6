"""The file of a quantised network: safetensors whose metadata holds the architecture and the grid of every matrix.

A quantised matrix is stored as "<name>.integers" (int8) and "<name>.scales" (fp16), the factors of its low-rank correction as
"<name>.left…" and "<name>.right…", any other tensor as "<name>" (fp16). All metadata is one JSON text under one key:
safetensors 0.8 writes several keys in an order that changes between processes, and the same network must give the same bytes.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialised

from fairway.errors import RERUN, InputError, reading
from fairway.lm import checkpoint
from fairway.lm.config import Architecture
from fairway.params import parse
from fairway.quant.matrix import QuantisedMatrix
from fairway.quant.rotation import block_size

Tensors = dict[str, np.ndarray]


def to_tensors(
    architecture: Architecture, matrices: dict[str, QuantisedMatrix], fp16: Tensors
) -> tuple[Tensors, dict[str, str]]:
    """The file's tensors by name and its metadata, {"quantised": JSON of the architecture and of the grids by name}."""
    tensors, grids = {name: np.asarray(values, order="C") for name, values in fp16.items()}, {}
    for name, matrix in matrices.items():
        grids[name] = {"bits": matrix.integer_bits, "states": matrix.states, "rotation": matrix.rotation}
        tensors |= {f"{name}.integers": np.ascontiguousarray(matrix.integers), f"{name}.scales": matrix.scales}
        if matrix.correction:
            grids[name]["repair_bits"] = matrix.correction[0].integer_bits
            for side, factor in zip(("left", "right"), matrix.correction, strict=True):
                tensors |= {
                    f"{name}.{side}.integers": np.ascontiguousarray(factor.integers),
                    f"{name}.{side}.scales": factor.scales,
                }
    header = {"architecture": dataclasses.asdict(architecture), "matrices": grids}
    return tensors, {"quantised": json.dumps(header, sort_keys=True)}


def from_tensors(tensors: Tensors, metadata: dict[str, str]) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """The inverse of `to_tensors`, names sorted. Raises KeyError or ValueError where the metadata does not fit."""
    header, rest = json.loads(metadata["quantised"]), dict(sorted(tensors.items()))
    matrices = {}
    for name, grid in sorted(header["matrices"].items()):
        bits = grid.pop("repair_bits", 0)
        factors = tuple(_take(rest, f"{name}.{side}", bits) for side in ("left", "right")) if bits else None
        matrices[name] = dataclasses.replace(_take(rest, name, **grid), correction=factors)
    try:
        return parse(header["architecture"], "architecture", Architecture, "its metadata"), matrices, rest
    except InputError as error:
        raise ValueError(error) from None


def _take(tensors: Tensors, name: str, bits: int, states: int = 0, rotation: int = 0) -> QuantisedMatrix:
    return QuantisedMatrix(tensors.pop(f"{name}.integers"), tensors.pop(f"{name}.scales"), bits, states, rotation)


def save(path: Path | str, architecture: Architecture, matrices: dict[str, QuantisedMatrix], fp16: Tensors) -> None:
    tensors, metadata = to_tensors(architecture, matrices, fp16)
    Path(path).write_bytes(serialised(tensors, metadata))  # raises OSError on a full disk; safetensors' own error is none


def load(path: Path | str) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """Architecture, quantised matrices and fp16 tensors by name. Raises InputError when the file is damaged or foreign."""
    damage = (SafetensorError, TypeError, KeyError, ValueError, AttributeError, ZeroDivisionError)
    with reading(path, "a quantised network", *damage), safe_open(path, framework="np") as file:
        return from_tensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118


def load_whole(path: Path | str) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """Like `load`; raises InputError also when shapes contradict the architecture or values contradict their grids."""
    architecture, matrices, fp16 = load(path)
    found = {name: matrix.integers.shape for name, matrix in matrices.items()}
    checkpoint.shaped(path, architecture, found | {name: values.shape for name, values in fp16.items()})
    for name, matrix in matrices.items():
        if not _on_its_grid(matrix):
            raise InputError(f"{path}: tensor '{name}' is not on the grid that its metadata describe; {RERUN}")
    for name, values in fp16.items():
        if not _finite(values):
            raise InputError(f"{path}: tensor '{name}' does not hold finite numbers of 16 bits; {RERUN}")
    return architecture, matrices, fp16


def _on_its_grid(matrix: QuantisedMatrix) -> bool:
    rows, columns = matrix.integers.shape
    return (
        matrix.integers.dtype == np.int8
        and _finite(matrix.scales)
        and matrix.scales.shape == (rows,)
        and matrix.integer_bits in range(2, 9)
        and int(np.abs(matrix.integers.astype(np.int16)).max()) < 2 ** (matrix.integer_bits - 1)
        and matrix.states in (0, 4, 8)
        and (not matrix.rotation or block_size(columns) % matrix.rotation == 0)
        and all(map(_on_its_grid, matrix.correction or ()))
    )


def _finite(values: np.ndarray) -> bool:
    return values.dtype == np.float16 and bool(np.isfinite(values).all())
