"""Files and folders that are whole or absent: written under a hidden name beside their place, then renamed."""

import fcntl
import glob
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LONGEST = 50  # characters of a name in that of its temporary: file systems take 255 bytes, of which a character needs four


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`, of which it takes the place when the block ends without an error.

    Makes the folder where it is missing. A link is replaced itself, never what it leads to. The new file has the permissions
    of the old one, or the usual ones. Removes the temporary, and those that killed processes left for the same path; several
    processes may write the same path, and the last one to end wins. System errors name `path`.
    """
    path = Path(path)
    with errors_naming(path, str(_hidden(path, ""))):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path, Path.unlink)
        new = _hidden(path, os.urandom(8).hex())
        lock = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        temporary = _locked(new, lock, path)
        try:
            yield temporary
            with suppress(FileNotFoundError):
                if stat.S_ISREG(mode := path.lstat().st_mode):
                    temporary.chmod(mode & 0o777)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """As `replacing`, for a folder with all that it holds; the old one is removed at the end of the block."""
    with errors_naming(path, str(_hidden(path, ""))):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path, shutil.rmtree)
        new = _hidden(path, os.urandom(8).hex())
        new.mkdir()
        lock = os.open(new, os.O_RDONLY | os.O_NOFOLLOW)
        temporary = _locked(new, lock, path)
        try:
            yield temporary
            shutil.rmtree(path, ignore_errors=True)
            temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            os.close(lock)


@contextmanager
def errors_naming(path: Path | str, hidden: str | None = None) -> Iterator[None]:
    """System errors in the block that name no file (a full disk) are raised again with the name of `path`.

    So are those that name a file whose path begins with `hidden`.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None or (hidden and str(error.filename).startswith(hidden)):
            error.filename = str(path)
        raise


def _hidden(path: Path, middle: str) -> Path:
    return path.with_name(f".{path.name[:LONGEST]}.{middle}" + ".partial" * bool(middle))


def _locked(new: Path, lock: int, path: Path) -> Path:
    """Lock a new temporary, and give it a name that tells its inode, which no other file and no copy of it has.

    So a later process knows the temporaries that this module made, and by their locks those whose process has ended.
    """
    fcntl.flock(lock, fcntl.LOCK_EX)
    return new.rename(_hidden(path, _inode_name(os.fstat(lock))))


def _remove_abandoned(path: Path, remove: Callable[[Path], object]) -> None:
    for left in path.parent.glob(f"{glob.escape(_hidden(path, '').name)}*.partial"):
        with suppress(OSError):
            if left == _hidden(path, _inode_name(left.lstat())):
                lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(left)
                finally:
                    os.close(lock)


def _inode_name(found: os.stat_result) -> str:
    return hashlib.sha256(f"fairway {found.st_dev} {found.st_ino}".encode()).hexdigest()[:16]
