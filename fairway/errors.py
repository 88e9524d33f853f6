"""The one exception a user is meant to read: a single sentence that names the file, key or line.

Stages print it without a traceback and exit with status 1; everything else is a bug and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RERUN = "run `dvc repro` to write it again"


class InputError(Exception):
    """Something the user gave is wrong: the message says where, what was expected, and what to do.

    It may quote a file, so what could command a terminal (control characters, direction marks) is shown as an escape.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """The text with every character that a terminal does not print as an escape, such as \\x1b; twice is as good as once."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


@contextmanager
def reading(path: Path | str, what: str, *damage: type[Exception]) -> Iterator[None]:
    """Blames this file, which should be `what`, for every error raised while the block reads it.

    `damage` lists the exceptions that the reader raises on a file of another kind or on part of one. These and system
    errors become an InputError that names the file; an InputError gets the name in front of its sentence.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {RERUN}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {RERUN}") from None
    except damage as error:
        raise InputError(f"{path}: not {what} ({' '.join(str(error).split())}); {RERUN}") from None
