"""The weights file `model.fwy`: architecture, coded matrices and fp16 tensors; no pickled objects.

    8   magic b"FAIRWAY\\0"
    2   version, little-endian like every number here
    4   bytes of the header as stored (raw deflate), 4 as JSON (header.py), 4 of BLAKE2b of the stored header
    …   header
    …   records: 4 bytes of BLAKE2b, then coded arrays
    16  BLAKE2b of everything before

An fp16 tensor is stored as one array; a matrix as integers and scales, and again integers and scales of both factors of its
low-rank correction. The coder "range" codes each array separately and writes one record per tensor, names sorted. The general
coders (general.py) code all arrays as one record: int8 as they are, fp16 as all low bytes followed by all high bytes.

Checksums cover every byte and are verified before anything is decoded, so any damage raises `ContainerError`.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import accumulate, islice, pairwise

import numpy as np

from fairway.codec import general
from fairway.codec.header import Entry, Header, Stored, form_of, pack, parse
from fairway.codec.weights import decode_floats, decode_matrix, encode_floats, encode_matrix
from fairway.errors import InputError
from fairway.quant.matrix import QuantisedMatrix

MAGIC = b"FAIRWAY\0"
VERSION = 2
FIXED = struct.Struct("<8sHII4s")
WHOLE_BYTES, PART_BYTES = 16, 4  # of checksum
MAX_HEADER = 1 << 22  # bytes; a network of ten thousand tensors stays below
# Weights for which memory is reserved, by the bytes of the file: half a bit per weight, and a few millions that cost nothing.
MOST_PER_BYTE, MOST_FREE = 16, 1 << 22


class ContainerError(InputError):
    """The weights file is damaged, truncated, of another version, or not a weights file."""


def write(config: dict, matrices: dict[str, QuantisedMatrix], fp16: dict[str, np.ndarray], coder: str = "range") -> bytes:
    """The bytes of `model.fwy`, the same for the same input.

    `config` can be written as JSON. `fp16`: arrays of any shape by name. No array is empty, and no name is a prefix of
    another one up to a dot. `coder` is "range" or one of general.CODERS.
    """
    entries = [Entry(name, matrix.integers.shape, form_of(matrix)) for name, matrix in matrices.items()]
    entries += [Entry(name, values.shape, {}) for name, values in fp16.items()]
    entries.sort()
    arrays = [array for name, *_ in entries for array in (_arrays(matrices[name]) if name in matrices else [fp16[name]])]
    if coder == "range":
        states = [stored.states for entry in entries for stored in entry.stored()]
        parts = _parallel(_encode, arrays, states)
    else:
        parts = [general.compress(b"".join(map(_raw, arrays)), coder)]
    header = Header(config, coder, entries, [len(part) for part in parts])
    packed = pack(header)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    stored = deflater.compress(packed) + deflater.flush()
    records = _cut(b"".join(parts), [length for _, length in header.records()])
    content = FIXED.pack(MAGIC, VERSION, len(stored), len(packed), _digest(stored, PART_BYTES)) + stored
    content += b"".join(_digest(record, PART_BYTES) + record for record in records)
    return content + _digest(content, WHOLE_BYTES)


def read(data: bytes, source: str = "model.fwy") -> tuple[dict, dict[str, np.ndarray]]:
    """The config and every tensor in float32, names sorted. Raises ContainerError."""
    config, matrices, fp16 = read_integers(data, source)
    tensors = dict(zip(matrices, _parallel(QuantisedMatrix.weights, matrices.values()), strict=True))
    tensors |= {name: values.astype(np.float32) for name, values in fp16.items()}
    return config, dict(sorted(tensors.items()))


def read_integers(data: bytes, source: str = "model.fwy") -> tuple[dict, dict[str, QuantisedMatrix], dict[str, np.ndarray]]:
    """The arguments that `write` was given. Raises ContainerError, naming `source`, before using any part of a damaged file."""
    header, records = _open(data, source)
    try:
        arrays = iter(_decode_all(header, b"".join(records)))
    except (ValueError, AssertionError, IndexError, ImportError, struct.error) as error:
        raise ContainerError(f"{source}: the weights cannot be decoded ({error}); run `dvc repro compress`") from None
    matrices, fp16 = {}, {}
    for entry in header.entries:
        own = list(islice(arrays, len(entry.stored())))
        if entry.form:
            matrices[entry.name] = _matrix(own, entry.form)
        else:
            fp16[entry.name] = own[0]
    return header.config, matrices, fp16


def read_header(data: bytes, source: str = "model.fwy") -> Header:
    """The config, and the names and shapes of the tensors. Raises ContainerError unless every checksum is right."""
    return _open(data, source)[0]


def record_sizes(data: bytes, source: str = "model.fwy") -> dict[str, int]:
    """Bytes of each tensor's record, checksum included, names sorted. Raises ContainerError.

    The one record of a general coder is divided among the tensors in proportion to their raw bytes.
    """
    header, records = _open(data, source)
    names = [entry.name for entry in header.entries]
    if header.coder == "range":
        return {name: PART_BYTES + len(record) for name, record in zip(names, records, strict=True)}
    raw = list(accumulate(sum(stored.raw_bytes for stored in entry.stored()) for entry in header.entries))
    ends = [end * (PART_BYTES + len(records[0])) // raw[-1] for end in raw]
    return {name: stop - start for name, (start, stop) in zip(names, pairwise([0, *ends]), strict=True)}


def _open(data: bytes, source: str) -> tuple[Header, list[bytes]]:
    """The header and the records, after verifying every checksum."""
    if len(data) < FIXED.size or not data.startswith(MAGIC):
        found = f"{data[: len(MAGIC)]!r} in {len(data)} bytes"
        raise ContainerError(f"{source}: not a fairway weights file: expected {MAGIC!r} at offset 0, found {found}")
    _, version, stored_length, header_length, digest = FIXED.unpack_from(data)
    if version != VERSION:
        raise ContainerError(f"{source}: version {version} at offset 8, expected {VERSION}; run `dvc repro compress`")
    at = FIXED.size + stored_length
    stored = data[FIXED.size : at]
    if at > len(data) or header_length > MAX_HEADER or _digest(stored, PART_BYTES) != digest:
        raise _damaged(source, "the header", FIXED.size)
    header = _inflate(stored, header_length, source)
    if (values := header.values) > MOST_PER_BYTE * len(data) + MOST_FREE:
        raise ContainerError(f"{source}: its header asks for {values:,} weights, too many for {len(data):,} bytes")
    end = at + sum(PART_BYTES + length for _, length in header.records()) + WHOLE_BYTES
    if end != len(data):
        raise ContainerError(f"{source}: expected {end} bytes, found {len(data)}; run `dvc repro compress` to write it again")
    records = []
    for name, length in header.records():
        digest, record = _cut(data[at : at + PART_BYTES + length], [PART_BYTES, length])
        if _digest(record, PART_BYTES) != digest:
            raise _damaged(source, f"the record of {name}", at)
        records.append(record)
        at += PART_BYTES + length
    if _digest(data[:at], WHOLE_BYTES) != data[at:]:
        raise _damaged(source, "the file", 0)
    return header, records


def _damaged(source: str, what: str, offset: int) -> ContainerError:
    return ContainerError(
        f"{source}: {what} at offset {offset} does not match its checksum: damaged or cut short; "
        "run `dvc repro compress` to write it again"
    )


def _inflate(stored: bytes, length: int, source: str) -> Header:
    """The header, whose checksum is verified: what remains to be refused is a forged file."""
    try:
        content = zlib.decompressobj(-15).decompress(stored, length + 1)
        if len(content) != length:
            raise ValueError(f"not {length} bytes")
        return parse(content)
    except (zlib.error, ValueError) as error:
        raise ContainerError(f"{source}: the header is not one of version {VERSION} ({error})") from None


def _decode_all(header: Header, body: bytes) -> list[np.ndarray]:
    arrays = header.stored()
    if header.coder == "range":
        return _parallel(_decode, _cut(body, header.lengths), arrays)
    sizes = [stored.raw_bytes for stored in arrays]
    return list(map(_from_raw, _cut(general.decompress(body, header.coder, sum(sizes)), sizes), arrays))


def _arrays(matrix: QuantisedMatrix) -> list[np.ndarray]:
    """The arrays of a matrix in the order of Entry.stored."""
    return [matrix.integers, matrix.scales] + [array for factor in matrix.correction or () for array in _arrays(factor)]


def _matrix(arrays: list[np.ndarray], form: dict) -> QuantisedMatrix:
    integers, scales, *factors = arrays
    correction = None
    if factors:
        _, left_bits, right_bits = form["repair"]
        correction = QuantisedMatrix(*factors[:2], left_bits), QuantisedMatrix(*factors[2:], right_bits)
    return QuantisedMatrix(integers, scales, form["bits"], form.get("states", 0), form.get("rotation", 0), correction)


def _encode(array: np.ndarray, states: int) -> bytes:
    return encode_matrix(array, states) if array.dtype == np.int8 else encode_floats(array)


def _decode(data: bytes, stored: Stored) -> np.ndarray:
    if stored.integers:
        return decode_matrix(data, stored.shape, stored.states)
    return decode_floats(data, stored.shape)


def _raw(array: np.ndarray) -> bytes:
    """The array's bytes in C order; of fp16 all low bytes, then all high bytes."""
    return (
        array.astype("<f2").ravel().view(np.uint8).reshape(-1, 2).T.tobytes() if array.dtype == np.float16 else array.tobytes()
    )


def _from_raw(data: bytes, stored: Stored) -> np.ndarray:
    values = np.frombuffer(data, np.int8)
    if stored.integers:
        return values.reshape(stored.shape).copy()
    return values.reshape(2, -1).T.copy().view("<f2").reshape(stored.shape).astype(np.float16)


def _cut(data: bytes, lengths: Iterable[int]) -> list[bytes]:
    return [data[start:stop] for start, stop in pairwise(accumulate(lengths, initial=0))]


def _digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size).digest()


def _parallel(function: Callable, *arguments: Iterable) -> list:
    """The results in order. The compiled loops of the coder release Python's lock, so threads suffice."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, *arguments))
