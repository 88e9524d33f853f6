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
from safetensors.numpy import save as serialised

from fairway.errors import RERUN, InputError, reading
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.quant.matrix import QuantisedMatrix
from fairway.quant.rotation import block_of

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
    Path(path).write_bytes(serialised(tensors, metadata))  # an error of Python's: safetensors' own is no OSError


def load(path: Path | str) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """Architecture, quantised matrices and fp16 tensors by name. Raises InputError when the file is damaged or foreign."""
    damage = (SafetensorError, TypeError, KeyError, ValueError, AttributeError, ZeroDivisionError)
    with reading(path, "a quantised network", *damage), safe_open(path, framework="np") as file:
        return from_tensors({name: file.get_tensor(name) for name in file.keys()}, file.metadata())  # noqa: SIM118


def load_whole(path: Path | str) -> tuple[Architecture, dict[str, QuantisedMatrix], Tensors]:
    """The same. Raises InputError also when the tensors are not those of the architecture, or the grids not theirs."""
    architecture, matrices, small = load(path)
    expected = {name: tuple(tensor.shape) for name, tensor in GPT(architecture).state_dict().items()}
    found = {name: matrix.integers.shape for name, matrix in matrices.items()}
    found |= {name: values.shape for name, values in small.items()}
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            problem = f"has shape {found.get(name)}, its architecture expects {expected.get(name)}"
        elif name in matrices and not _on_its_grid(matrices[name]):
            problem = "is not on the grid that its metadata describe"
        elif name in small and not _finite(small[name]):
            problem = "does not hold finite numbers of 16 bits"
        else:
            continue
        raise InputError(f"{path}: tensor '{name}' {problem}; {RERUN}")
    return architecture, matrices, small


def _on_its_grid(matrix: QuantisedMatrix) -> bool:
    rows, columns = matrix.integers.shape
    return (
        matrix.integers.dtype == np.int8
        and _finite(matrix.scales)
        and matrix.scales.shape == (rows,)
        and matrix.bits in range(2, 9)
        and int(np.abs(matrix.integers.astype(np.int16)).max()) < 2 ** (matrix.bits - 1)
        and matrix.states in (0, 4, 8)
        and (not matrix.rotation or block_of(columns) % matrix.rotation == 0)
        and all(map(_on_its_grid, matrix.repair or ()))
    )


def _finite(values: np.ndarray) -> bool:
    return values.dtype == np.float16 and bool(np.isfinite(values).all())
