"""Files that are whole or absent, whatever happens while they are written, and nothing of a user's that is touched."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.files import errors_naming, replacing

ROOT = Path(__file__).resolve().parents[1]
KILLED = """
import os, signal
from fairway.files import replacing
with replacing("deep/file") as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_replaced_file_appears_at_the_end_of_the_block(tmp_path):
    path = tmp_path / "deep" / "er" / "file"
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == path.parent and not path.exists()
    assert path.read_bytes() == b"new" and names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error, old):
    path = tmp_path / "file"
    if old:
        path.write_bytes(old)
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert names(tmp_path) == (["file"] if old else [])
    assert not old or path.read_bytes() == old


def test_an_exception_before_anything_was_written_is_the_one_that_is_seen(tmp_path):
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "file"):
        raise ZeroDivisionError


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_kill_leaves_the_old_file_or_none(tmp_path, old):
    path = tmp_path / "deep" / "file"
    path.parent.mkdir()
    if old:
        path.write_bytes(old)
    ended = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    assert path.exists() is bool(old)
    assert not old or path.read_bytes() == old
    (left,) = set(names(path.parent)) - {"file"}
    assert left.startswith(".file.")  # hidden, and no later run takes it for its own
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert names(path.parent) == ["file"]


def test_an_error_of_the_system_names_the_file_and_not_its_temporary(tmp_path):
    path = tmp_path / "file"
    for error in (
        OSError(28, "No space left on device"),
        OSError(30, "Read-only file system", f"{tmp_path}/.file.{os.getpid()}.partial"),
    ):
        with pytest.raises(OSError) as raised, replacing(path):
            raise error
        assert raised.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as raised, replacing(path):
        Path("elsewhere").read_bytes()
    assert raised.value.filename == "elsewhere"


def test_files_with_like_names_and_those_of_running_processes_stay(tmp_path):
    kept = [".file.swp", ".file.part", "file.part", ".file.mine.partial", f".file.{os.getppid()}.partial", ".file.1.partial"]
    for name in kept:
        (tmp_path / name).write_bytes(b"kept")
    with replacing(tmp_path / "file") as temporary:
        assert temporary.name not in kept
        temporary.write_bytes(b"new")
    assert names(tmp_path) == sorted([*kept, "file"])


def test_system_errors_in_a_block_name_its_file():
    with pytest.raises(OSError) as raised, errors_naming("folder"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == "folder"
