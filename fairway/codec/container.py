"""The weights file `model.fwy`: architecture, coded matrices and fp16 tensors, with no pickled object.

    8   magic b"FAIRWAY\\0"
    2   version, little-endian like every number here
    4   bytes of the header as stored (zlib), 4 as JSON, 16 BLAKE2b of the stored header
    …   header: {"config": …, "tensors": [{"kind", "lengths", "name", "shape"} and "bits" for a matrix, …]}, keys sorted
    …   one record a tensor, names sorted: 4 bytes of BLAKE2b, then the coded integers and scales, or the coded floats
    16  BLAKE2b of everything before

Every byte lies under a checksum that is checked before anything is decoded, so any damage is a `ContainerError`.
"""

import json
import struct
import zlib
from hashlib import blake2b
from math import prod

import numpy as np

from fairway.codec.weights import decode_floats, decode_matrix, encode_floats, encode_matrix
from fairway.errors import InputError

MAGIC = b"FAIRWAY\0"
VERSION = 1
FIXED = struct.Struct("<8sHII16s")
WHOLE_BYTES, RECORD_BYTES = 16, 4  # of checksum
MAX_HEADER = 1 << 24  # bytes; a network of ten thousand tensors stays below
MAX_VALUES = 1 << 32  # weights in one file


class ContainerError(InputError):
    """A weights file that is damaged, cut short, foreign, or of another version."""


def write(config: dict, matrices: dict[str, tuple[np.ndarray, np.ndarray, int]], small: dict[str, np.ndarray]) -> bytes:
    """The bytes of `model.fwy`.

    `config` is what JSON can say. `matrices` by name: integers int8 (R, C) within ±(2^(bits−1) − 1), scales fp16 (R,),
    bits. `small` by name: fp16 arrays of any shape. No array is empty.
    """
    tensors, records = [], []
    for name in sorted(matrices.keys() | small.keys()):
        if name in matrices:
            integers, scales, bits = matrices[name]
            parts = [encode_matrix(integers), encode_floats(scales)]
            entry = {"bits": bits, "kind": "matrix", "shape": integers.shape}
        else:
            parts = [encode_floats(small[name])]
            entry = {"kind": "float", "shape": small[name].shape}
        tensors.append(entry | {"lengths": [len(part) for part in parts], "name": name})
        body = b"".join(parts)
        records.append(_digest(body, RECORD_BYTES) + body)
    header = json.dumps({"config": config, "tensors": tensors}, sort_keys=True, separators=(",", ":")).encode()
    stored = zlib.compress(header, 9)
    fixed = FIXED.pack(MAGIC, VERSION, len(stored), len(header), _digest(stored, 16))
    content = b"".join([fixed, stored, *records])
    return content + _digest(content, WHOLE_BYTES)


def read(data: bytes, source: str = "model.fwy") -> tuple[dict, dict[str, np.ndarray]]:
    """The config and every tensor in float32, names sorted: integers·scale, or fp16 widened. Raises ContainerError."""
    config, matrices, small = read_integers(data, source)
    tensors = {name: integers * scales.astype(np.float32)[:, None] for name, (integers, scales, _) in matrices.items()}
    tensors |= {name: values.astype(np.float32) for name, values in small.items()}
    return config, dict(sorted(tensors.items()))


def read_integers(
    data: bytes, source: str = "model.fwy"
) -> tuple[dict, dict[str, tuple[np.ndarray, np.ndarray, int]], dict[str, np.ndarray]]:
    """What `write` was given. Raises ContainerError, naming `source`, before anything of a damaged file is used."""
    config, tensors, at = _open(data, source)
    matrices, small = {}, {}
    try:
        for entry in tensors:
            bodies = []
            at += RECORD_BYTES
            for length in entry["lengths"]:
                bodies.append(data[at : at + length])
                at += length
            if entry["kind"] == "matrix":
                rows, columns = entry["shape"]
                integers, scales = decode_matrix(bodies[0], (rows, columns)), decode_floats(bodies[1], (rows,))
                matrices[entry["name"]] = (integers, scales, entry["bits"])
            else:
                small[entry["name"]] = decode_floats(bodies[0], tuple(entry["shape"]))
    except (ValueError, AssertionError, IndexError, struct.error) as error:
        raise ContainerError(f"{source}: '{entry['name']}' cannot be decoded ({error}); run `dvc repro compress`") from None
    return config, matrices, small


def record_sizes(data: bytes, source: str = "model.fwy") -> dict[str, int]:
    """Bytes of each tensor's record, checksum included, names sorted. Raises ContainerError."""
    return {entry["name"]: RECORD_BYTES + sum(entry["lengths"]) for entry in _open(data, source)[1]}


def _digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size).digest()


def _open(data: bytes, source: str) -> tuple[dict, list[dict], int]:
    """The config, the tensors' entries, and where the first record begins, once every checksum has been found right."""
    if len(data) < FIXED.size or not data.startswith(MAGIC):
        found = f"{data[: len(MAGIC)]!r} in {len(data)} bytes"
        raise ContainerError(f"{source}: not a fairway weights file: expected {MAGIC!r} at offset 0, found {found}")
    _, version, stored_length, header_length, header_digest = FIXED.unpack_from(data)
    if version != VERSION:
        raise ContainerError(f"{source}: version {version} at offset 8, expected {VERSION}; run `dvc repro compress`")
    at = FIXED.size + stored_length
    stored = data[FIXED.size : at]
    if at > len(data) or header_length > MAX_HEADER or _digest(stored, 16) != header_digest:
        raise _damaged(source, "the header", FIXED.size)
    config, tensors = _parse(stored, header_length, source)
    end = at + sum(RECORD_BYTES + sum(entry["lengths"]) for entry in tensors) + WHOLE_BYTES
    if end != len(data):
        raise ContainerError(f"{source}: expected {end} bytes, found {len(data)}; run `dvc repro compress` to write it again")
    first = at
    for entry in tensors:
        stop = at + RECORD_BYTES + sum(entry["lengths"])
        if _digest(data[at + RECORD_BYTES : stop], RECORD_BYTES) != data[at : at + RECORD_BYTES]:
            raise _damaged(source, f"the record of '{entry['name']}'", at)
        at = stop
    if _digest(data[:at], WHOLE_BYTES) != data[at:]:
        raise _damaged(source, "the file", 0)
    return config, tensors, first


def _damaged(source: str, what: str, offset: int) -> ContainerError:
    return ContainerError(
        f"{source}: {what} at offset {offset} does not match its checksum: damaged or cut short; "
        "run `dvc repro compress` to write it again"
    )


def _parse(stored: bytes, header_length: int, source: str) -> tuple[dict, list[dict]]:
    """The header, its checksum already right: what remains to refuse is a file that somebody forged."""
    try:
        inflater = zlib.decompressobj()
        header = inflater.decompress(stored, header_length + 1)
        content = json.loads(header)
        config, tensors = content["config"], content["tensors"]
        values = sum(_values(entry) for entry in tensors)
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ContainerError(f"{source}: the header is not one of version {VERSION} ({error})") from None
    if len(header) != header_length or not isinstance(config, dict) or values > MAX_VALUES:
        raise ContainerError(f"{source}: the header declares {values} weights in {header_length} bytes of JSON")
    return config, tensors


def _values(entry: dict) -> int:
    """Weights of one tensor. Raises ValueError when its entry is not well formed."""
    kind, shape, lengths = entry["kind"], entry["shape"], entry["lengths"]
    matrix = kind == "matrix" and len(shape) == len(lengths) == 2 and 2 <= entry["bits"] <= 8
    if not isinstance(entry["name"], str) or not (matrix or (kind == "float" and len(lengths) == 1)):
        raise ValueError(f"entry {entry!r}")
    if not all(type(number) is int and number > 0 for number in [*shape, *lengths]):
        raise ValueError(f"sizes of '{entry['name']}': {shape!r}, {lengths!r}")
    return prod(shape)
