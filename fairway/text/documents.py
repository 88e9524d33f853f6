"""Read documents from files, one at a time: .jsonl, .jsonl.zst, .jsonl.gz, .txt and .parquet.

Memory is bounded by one document (or one batch of a parquet file), whatever the size of the corpus. Every problem with a
file is an InputError that names the file and the line, row or byte offset (counted after decompression).
"""

import glob
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from fairway.errors import InputError, reading

CHUNK = 2**17  # bytes read at a time
BATCH_ROWS = 64  # parquet rows held at a time
LARGEST_WINDOW = 2**31  # bytes; the zstd tool writes at most --long=31


def find_files(globs: list[str], key: str) -> list[Path]:
    """The files that match the globs, each once, sorted. Raises InputError, naming the params key, if a glob has no match."""
    if not globs:
        raise InputError(f"{key} is empty; give at least one glob")
    found: set[Path] = set()
    for pattern in globs:
        matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 (Path.glob refuses absolute and odd patterns)
        files = [path for path in map(Path, matches) if path.is_file()]
        if not files:
            raise InputError(f"{key}: no file matches '{pattern}' in {Path.cwd()}; put one there or change the glob")
        found.update(files)
    return sorted(found)


def read_documents(globs: list[str], text_field: str) -> Iterator[str]:
    """The text of every document, file by file in sorted order. Raises InputError at the first unreadable one."""
    for path in find_files(globs, "data.documents"):
        yield from read_file(path, text_field)


def read_stored(path: Path) -> list[str]:
    """The documents that `tokenize` stored in a .jsonl.zst file: maybe none, and of ready-made shards maybe empty ones.

    Raises InputError if it is damaged.
    """
    lines = list(split_lines(_chunks(path)))
    with reading(path, "documents as JSON lines", ValueError, KeyError, TypeError):
        return [json.loads(line)["text"] for line in lines]


def read_file(path: Path, text_field: str) -> Iterator[str]:
    """The documents of one file: at least one, none empty, with any characters, NUL included. Raises InputError."""
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; remove it or fill it")
    if path.suffix == ".parquet":
        yield from _parquet(path, text_field)
    elif path.suffix == ".txt":
        yield _decode(path.read_bytes(), path, 0)
    elif path.name.endswith((".jsonl", ".jsonl.zst", ".jsonl.gz")):
        yield from _json_lines(path, text_field)
    else:
        raise InputError(f"{path}: unknown kind of file; expected .jsonl, .jsonl.zst, .jsonl.gz, .txt or .parquet")


def _json_lines(path: Path, text_field: str) -> Iterator[str]:
    number, offset = 0, 0
    for number, line in enumerate(split_lines(_chunks(path)), 1):
        where = f"{path}, line {number}"
        try:
            record = json.loads(_decode(line, path, offset))
        except json.JSONDecodeError as error:
            raise InputError(
                f"{where}: not valid JSON ({error.msg}, column {error.colno}); expected one object per line"
            ) from None
        except (RecursionError, ValueError) as error:  # nested too deeply, or an integer of thousands of digits
            raise InputError(
                f"{where}: JSON beyond the reader's limits ({error}); expected '{text_field}' and plain fields"
            ) from None
        if not isinstance(record, dict):
            raise InputError(f"{where}: expected a JSON object with '{text_field}', found {type(record).__name__}")
        if text_field not in record:
            fields = ", ".join(record) or "none"
            raise InputError(f"{where}: the record has no '{text_field}', its fields are: {fields}; set data.text_field")
        yield _checked(record[text_field], text_field, where)
        offset += len(line) + 1
    if not number:
        raise InputError(f"{path}: holds no lines after decompression; remove it or fill it")


def _checked(text: object, text_field: str, where: str) -> str:
    if not isinstance(text, str):
        raise InputError(f"{where}: '{text_field}' is {type(text).__name__}; expected text")
    if not text:
        raise InputError(f"{where}: '{text_field}' is empty; remove the record or give it text")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise InputError(
                f"{where}: '{text_field}' has half a surrogate pair, \\u{code:04x}, at character {error.start}, "
                "which UTF-8 cannot hold; remove or replace it"
            ) from None
    return text


def _decode(content: bytes, path: Path, offset: int) -> str:
    """Decode bytes that begin at `offset` of the file as UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start} (0x{content[error.start]:02x}, {error.reason})"
        raise InputError(f"{path}: not UTF-8 at {place}; convert the file to UTF-8") from None


def split_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their \\n; the last one may lack it."""
    parts: list[bytes] = []  # of the line that continues in the next chunk
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        parts.append(first)
        for line in rest:
            yield b"".join(parts)
            parts = [line]
    if last := b"".join(parts):
        yield last


def _chunks(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file. Raises InputError if it is damaged or truncated."""
    try:
        if path.suffix == ".zst":
            yield from _zstd_chunks(path)
        else:
            with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    yield chunk
    except EOFError:
        size = path.stat().st_size
        raise InputError(
            f"{path}: truncated, its compressed data has no end after {size} bytes; fetch the file again"
        ) from None
    except (zstandard.ZstdError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be decompressed ({error}); fetch the file again") from None


def _zstd_chunks(path: Path) -> Iterator[bytes]:
    """Track frames by hand, because zstandard's own reader accepts a truncated frame."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    frame = None
    with path.open("rb") as file:
        while compressed := file.read(CHUNK):
            while compressed:
                frame = frame or decompressor.decompressobj()
                yield frame.decompress(compressed)
                compressed = frame.unused_data if frame.eof else b""
                frame = None if frame.eof else frame
    if frame is not None:
        raise EOFError


def _parquet(path: Path, text_field: str) -> Iterator[str]:
    import pyarrow
    from pyarrow import parquet

    row = 0
    try:
        with parquet.ParquetFile(path) as file:
            if text_field not in file.schema_arrow.names:
                names = ", ".join(file.schema_arrow.names)
                raise InputError(f"{path}: no column '{text_field}', the columns are: {names}; set data.text_field")
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=[text_field]):
                for value in batch.column(0).to_pylist():
                    row += 1
                    yield _checked(value, text_field, f"{path}, row {row}")
            if not row:
                raise InputError(f"{path}: holds no rows; remove it or fill it")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: column '{text_field}' is not UTF-8 near row {row} ({error.reason}); convert it") from None
    except (pyarrow.ArrowException, OSError) as error:
        problem = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"{path}: not a readable parquet file ({problem}); fetch the file again") from None
