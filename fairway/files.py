"""Files that are whole or absent: written under a hidden name beside their place, then renamed."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, of which it takes the place when the block ends without an error.

    Makes the folder where it is missing. Removes the temporary, and those that killed processes left for the same path.
    System errors name `path`.
    """
    path = Path(path)
    with errors_naming(path, temporary := path.with_name(f".{path.name}.{os.getpid()}.partial")):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
            pid = left.name.split(".")[-2]
            if pid.isdecimal() and not _is_running(int(pid)):
                left.unlink(missing_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def errors_naming(path: Path | str, temporary: Path | None = None) -> Iterator[None]:
    """System errors in the block that name no file (a full disk), or `temporary`, are raised again with the name of `path`."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True
