"""The one exception a user is meant to read: a single sentence that names the file, key or line.

Stages print it without a traceback and exit with status 1; everything else is a bug and keeps its traceback.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AGAIN = "run `dvc repro` to write it again"


class InputError(Exception):
    """Something the user gave is wrong: the message says where, what was expected, and what to do."""


@contextmanager
def sound(path: Path | str, what: str, *damage: type[Exception]) -> Iterator[None]:
    """Whatever goes wrong in the block is the fault of this file, which is to be `what`.

    `damage` are the errors that a reader raises for another kind of file, or half of one; they, and the system's, become an
    InputError that names the file. An InputError gets the name in front of its sentence.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: missing; {AGAIN}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {AGAIN}") from None
    except damage as error:
        raise InputError(f"{path}: not {what} ({' '.join(str(error).split())}); {AGAIN}") from None
