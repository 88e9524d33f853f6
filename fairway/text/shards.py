"""Token shards in the challenge's .bin format, written as a stream and read as memory maps.

A shard is a header of 256 little-endian int32 (20240520, 1, number of tokens, zeros), then the tokens as little-endian uint16
(reference/frontier-and-rules.md §5). Reading maps the file. A split of several shards is one array-like that copies only
the requested slice.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fairway.errors import InputError

HEADER_BYTES = 1024
MAGIC, VERSION = 20240520, 1
TOKEN = np.dtype("<u2")
CHUNK = 2**20  # tokens per pass of a loop


class ShardWriter:
    """Writes a stream of tokens as `<prefix>_000000.bin` and so on, `shard_tokens` in each but the last.

    A shard gets its name when it is complete. `tokens` counts and `sha256` hashes the stream (uint16, no headers).
    """

    def __init__(self, folder: Path, prefix: str, shard_tokens: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.prefix, self.shard_tokens = folder, prefix, shard_tokens
        self.tokens, self.sha256 = 0, hashlib.sha256()
        self._file, self._filled, self._shards = None, 0, 0

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind, *_) -> None:
        if self._file is not None:
            if kind is None:
                self._finish()
            else:
                self._file.close()
                Path(self._file.name).unlink()

    def write(self, tokens: np.ndarray) -> None:
        """Append uint16 tokens [n]."""
        tokens = tokens.astype(TOKEN, copy=False)
        self.tokens += len(tokens)
        self.sha256.update(tokens.tobytes())
        while len(tokens):
            if self._file is None:
                self._file = (self.folder / f".{self.prefix}_{self._shards:06d}.bin").open("wb")
                self._file.write(bytes(HEADER_BYTES))
            part, tokens = np.split(tokens, [self.shard_tokens - self._filled])
            self._file.write(part.tobytes())
            self._filled += len(part)
            if self._filled == self.shard_tokens:
                self._finish()

    def _finish(self) -> None:
        self._file.seek(0)
        self._file.write(header(self._filled))
        self._file.close()
        hidden = Path(self._file.name)
        hidden.replace(hidden.with_name(hidden.name[1:]))
        self._file, self._filled, self._shards = None, 0, self._shards + 1


def header(tokens: int) -> bytes:
    """The 1,024-byte header of a shard of `tokens` tokens."""
    return np.array([MAGIC, VERSION, tokens], dtype="<i4").tobytes().ljust(HEADER_BYTES, b"\0")


def read_shard(path: Path, vocabulary_size: int) -> np.memmap:
    """The tokens of one shard, uint16, mapped read-only.

    Raises InputError for a wrong magic, version or length, or a token outside the vocabulary; it checks every token.
    """
    size = path.stat().st_size
    if size < HEADER_BYTES + TOKEN.itemsize:
        raise InputError(f"{path}: {size} bytes; expected a header of {HEADER_BYTES} bytes and at least one token")
    magic, version, count = np.fromfile(path, dtype="<i4", count=3).tolist()
    for field, found, expected in (("magic", magic, MAGIC), ("version", version, VERSION)):
        if found != expected:
            raise InputError(f"{path}: header field '{field}' is {found}, expected {expected}; this is not a token shard")
    if size != HEADER_BYTES + TOKEN.itemsize * count:
        raise InputError(
            f"{path}: header field 'length' says {count} tokens, so expected {HEADER_BYTES + TOKEN.itemsize * count} bytes, "
            f"found {size}; fetch the file again"
        )
    tokens = np.memmap(path, dtype=TOKEN, mode="r", offset=HEADER_BYTES)
    for start in range(0, count, CHUNK):
        outside = np.flatnonzero(tokens[start : start + CHUNK] >= vocabulary_size)
        if len(outside):
            index = start + int(outside[0])
            raise InputError(
                f"{path}: token {index} is {tokens[index]}, expected below {vocabulary_size}, the size of the vocabulary; "
                "the shard belongs to another tokenizer"
            )
    return tokens


class Shards:
    """Several shards as one read-only array of uint16 tokens: len, an index, or a slice (a copy where it crosses shards)."""

    dtype = TOKEN

    def __init__(self, parts: list[np.ndarray]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)]).tolist()  # start of each part, and the end

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int | slice):
        if not isinstance(index, slice):
            index = range(len(self))[index]
            part = bisect_right(self._starts, index) - 1
            return self._parts[part][index - self._starts[part]]
        start, stop, step = index.indices(len(self))
        if step != 1:
            raise ValueError("slices of shards have step 1")
        first = bisect_right(self._starts, start) - 1
        pieces = []
        for part, begin in zip(self._parts[first:], self._starts[first:], strict=False):
            if begin >= stop:
                break
            pieces.append(part[max(start - begin, 0) : stop - begin])
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=TOKEN)


def read_split(folder: Path, vocabulary_size: int) -> "np.memmap | Shards":
    """The tokens of all shards in a folder, in order of name. Raises InputError as `read_shard`, or if there are none."""
    paths = sorted(folder.glob("*.bin"))
    if not paths:
        raise InputError(f"{folder}: no token shard (*.bin) in this folder; run the tokenize stage")
    return read_shards(paths, vocabulary_size)


def read_shards(paths: list[Path], vocabulary_size: int) -> "np.memmap | Shards":
    """The tokens of these shards (at least one), in this order. Raises InputError as `read_shard`."""
    parts = [read_shard(path, vocabulary_size) for path in paths]
    return parts[0] if len(parts) == 1 else Shards(parts)


def documents(tokens: "np.ndarray | Shards", bos: int) -> Iterator[np.ndarray]:
    """The documents of a stream, each from its BOS up to the next one; tokens before the first BOS are a document too.

    Memory: one document and one chunk.
    """
    open_parts: list[np.ndarray] = []  # of the document that continues in the next chunk
    for start in range(0, len(tokens), CHUNK):
        chunk = tokens[start : start + CHUNK]
        first, *rest = np.split(chunk, np.flatnonzero(chunk == bos))
        if len(first):
            open_parts.append(first)
        for part in rest:
            if open_parts:
                yield np.concatenate(open_parts)
            open_parts = [part]
    if open_parts:
        yield np.concatenate(open_parts)
