"""Files of the command line as streams, "-" for standard input and output. Errors with them are InputErrors.

A file is written under a temporary name and renamed when complete, so a failure leaves no partial file under its name.
Anything but a regular file (a pipe, /dev/null) is written directly.
"""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from fairway.errors import InputError
from fairway.files import replacing

CHUNK = 1 << 20  # bytes


@contextmanager
def opened(name: str, twice: bool = False) -> Iterator[BinaryIO]:
    """Open for reading. With `twice`, input that cannot be rewound, such as standard input, is copied to a temporary file."""
    with (
        _errors_with(_label(name, "input")),
        os.fdopen(_open(sys.stdin).fileno(), "rb", closefd=False) if name == "-" else Path(name).open("rb") as file,
    ):
        if not twice or (name != "-" and file.seekable()):
            yield file
            return
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(file, spool, CHUNK)
            yield spool


@contextmanager
def created(name: str, *read: str) -> Iterator[BinaryIO]:
    """Open for writing; the file gets its name when the block ends without an error.

    Raises InputError for a folder, a link, and one of the files that are `read`.
    """
    path, standard = Path(name), is_output(name)
    with _errors_with(_label(name, "output")):
        if standard:
            _open(sys.stdout)
        if path.is_dir():
            raise InputError(f"{name}: is a folder; give the name of a file to write")
        for other in read:
            if _same(name, other):
                raise InputError(f"{name}: is {other}, which is read; give the name of another file to write")
        if standard or (path.exists() and not path.is_file()):
            with os.fdopen(_open(sys.stdout).fileno(), "wb", closefd=False) if standard else path.open("wb") as file:
                yield file
            return
        if path.is_symlink():
            raise InputError(f"{name}: is a link; give the name of the file itself")
        path.parent.stat()  # a folder that is missing is a mistake here
        with replacing(path) as temporary, temporary.open("wb") as file:
            yield file


def is_output(name: str) -> bool:
    """Whether a file is standard output, under this or another name such as /dev/stdout."""
    with suppress(OSError):
        return name == "-" or os.path.samestat(Path(name).stat(), os.fstat(1))
    return False


def chunks(file: BinaryIO) -> Iterator[bytes]:
    """The whole file from its start, CHUNK bytes at a time."""
    file.seek(0)
    yield from iter(lambda: file.read(CHUNK), b"")


def say(text: str, error: bool = False, end: str = "\n") -> None:
    """Print on standard output, or error, at once. Raises InputError where that is closed or full."""
    stream = sys.stderr if error else sys.stdout
    with _errors_with("standard error" if error else "standard output"):
        try:
            print(text, end=end, file=_open(stream), flush=True)
        except OSError:
            if stream is not None:  # what it still holds shall vanish, or Python complains of it when it ends
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise


def _open(stream: TextIO | None) -> TextIO:
    if stream is None:
        raise OSError(0, "is closed")
    return stream


def _same(name: str, other: str) -> bool:
    """Whether two names ("-" for the standard streams) are of one regular file."""
    with suppress(OSError):
        written = os.fstat(1) if name == "-" else Path(name).stat()
        found = os.fstat(0) if other == "-" else Path(other).stat()
        return stat.S_ISREG(found.st_mode) and os.path.samestat(written, found)
    return False


def _label(name: str, kind: str) -> str:
    return f"standard {kind}" if name == "-" else name


@contextmanager
def _errors_with(label: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{label}: {error.strerror}") from None
