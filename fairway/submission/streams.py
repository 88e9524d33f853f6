"""Files of the command line as streams, "-" for standard input and output. Errors with them are InputErrors.

A file is written under a temporary name and renamed when complete, so a failure leaves no partial file under its name.
Anything but a regular file (a pipe, /dev/null) is written directly.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from fairway.errors import InputError
from fairway.files import replacing

CHUNK = 1 << 20  # bytes


@contextmanager
def opened(name: str, twice: bool = False) -> Iterator[BinaryIO]:
    """Open for reading. With `twice`, input that cannot be rewound, such as standard input, is copied to a temporary file."""
    with (
        _errors_with(_label(name, "input")),
        os.fdopen(sys.stdin.fileno(), "rb", closefd=False) if name == "-" else Path(name).open("rb") as file,
    ):
        if not twice or (name != "-" and file.seekable()):
            yield file
            return
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool, CHUNK)
            yield spool


@contextmanager
def created(name: str) -> Iterator[BinaryIO]:
    """Open for writing; the file gets its name when the block ends without an error."""
    path = Path(name)
    if path.is_dir():
        raise InputError(f"{name}: is a folder; give the name of a file to write")
    with _errors_with(_label(name, "output")):
        if name == "-" or (path.exists() and not path.is_file()):
            with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) if name == "-" else path.open("wb") as file:
                yield file
            return
        path = path.resolve()
        path.parent.stat()  # a folder that is missing is a mistake here
        with replacing(path) as temporary, temporary.open("wb") as file:
            yield file


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """The whole file from its start, CHUNK bytes at a time."""
    file.seek(0)
    yield from iter(lambda: file.read(CHUNK), b"")


def _label(name: str, kind: str) -> str:
    return f"standard {kind}" if name == "-" else name


@contextmanager
def _errors_with(label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{label}: {error.strerror}") from None
