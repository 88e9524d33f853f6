"""Files that are whole or absent, whatever happens while they are written, and nothing of a user's that is touched."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fairway.files import errors_naming, replacing, replacing_folder

ROOT = Path(__file__).resolve().parents[1]
KILLED = """
import os, pathlib, signal, sys
from fairway import files
with getattr(files, sys.argv[1])(pathlib.Path("deep/file")) as temporary:
    (temporary if sys.argv[1] == "replacing" else temporary / "part").write_bytes(b"half")
    print(temporary.name, flush=True)
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


def kill(folder: Path, how: str = "replacing") -> Path:
    """What a process that is killed as it writes deep/file leaves."""
    command = [sys.executable, "-c", KILLED, how]
    run = {"cwd": folder, "env": os.environ | {"PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True, "check": False}
    ended = subprocess.run(command, **run)
    assert ended.returncode == -signal.SIGKILL
    return folder / "deep" / ended.stdout.strip()


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_kill_leaves_the_old_file_or_none(tmp_path, old):
    path = tmp_path / "deep" / "file"
    path.parent.mkdir()
    if old:
        path.write_bytes(old)
    left = kill(tmp_path)
    assert path.exists() is bool(old)
    assert not old or path.read_bytes() == old
    assert names(path.parent) == [left.name, *(["file"] if old else [])]
    assert left.name.startswith(".file.")  # hidden, and no later run takes it for its own
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert names(path.parent) == ["file"]


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "file"
    left = kill(tmp_path, "replacing_folder")
    assert names(path.parent) == [left.name]
    for content in (b"first", b"second"):
        with replacing_folder(path) as temporary:
            (temporary / "part").write_bytes(content)
        assert names(path.parent) == ["file"] and (path / "part").read_bytes() == content
    with pytest.raises(ZeroDivisionError), replacing_folder(path) as temporary:
        (temporary / "part").write_bytes(b"half")
        raise ZeroDivisionError
    assert names(path.parent) == ["file"] and (path / "part").read_bytes() == b"second"


def test_an_error_of_the_system_names_the_file_and_not_its_temporary(tmp_path):
    path = tmp_path / "file"
    for error in (
        OSError(28, "No space left on device"),
        OSError(30, "Read-only file system", f"{tmp_path}/.file.0123456789abcdef.partial"),
    ):
        with pytest.raises(OSError) as raised, replacing(path):
            raise error
        assert raised.value.filename == str(path)
    with pytest.raises(FileNotFoundError) as raised, replacing(path):
        Path("elsewhere").read_bytes()
    assert raised.value.filename == "elsewhere"


def test_files_with_like_names_and_those_of_running_processes_stay(tmp_path):
    path = tmp_path / "deep" / "file"
    left = kill(tmp_path)
    copy = left.with_name(".file.0123456789abcdef.partial")
    shutil.copy(left, copy)
    shutil.copy(left, copy.with_name("other")).replace(left)  # of another inode: what a name says is no proof
    kept = [".file.swp", ".file.part", "file.part", ".file.mine.partial", f".file.{os.getpid()}.partial", ".file.4711.partial"]
    for name in kept:
        (path.parent / name).write_bytes(b"kept")
    with replacing(path) as running:
        running.write_bytes(b"first")
        with replacing(path) as temporary:
            assert temporary != running and running.exists()
            temporary.write_bytes(b"second")
    assert path.read_bytes() == b"first"
    assert names(path.parent) == sorted([*kept, "file", left.name, copy.name])


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "data").write_bytes(b"precious")
    path = tmp_path / "file"
    path.symlink_to("data")
    with replacing(path) as temporary:
        assert not temporary.is_symlink()
        temporary.write_bytes(b"new")
    assert path.read_bytes() == b"new" and not path.is_symlink() and (tmp_path / "data").read_bytes() == b"precious"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o444])
def test_permissions_stay_as_they_are(tmp_path, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
    assert path.stat().st_mode & 0o7777 == mode and path.read_bytes() == b"new"


def test_permissions_of_a_new_file_are_the_usual_ones(tmp_path):
    with replacing(tmp_path / "file"):
        pass
    (tmp_path / "usual").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_name_of_any_length_has_room(tmp_path):
    for name in ("n" * 255, "\U0001f9ed" * 63):
        with replacing(tmp_path / name) as temporary:
            temporary.write_bytes(b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_many_at_once_write_whole_files(tmp_path):
    """Each as a process of its own would: none takes another's temporary for abandoned."""
    path, contents = tmp_path / "file", [bytes([value]) * 100_000 for value in range(8)]

    def write(content: bytes) -> None:
        for _ in range(20):
            with replacing(path) as temporary:
                temporary.write_bytes(content)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, contents))
    assert path.read_bytes() in contents and names(tmp_path) == ["file"]


def test_system_errors_in_a_block_name_its_file():
    with pytest.raises(OSError) as raised, errors_naming("folder"):
        raise OSError(28, "No space left on device")
    assert raised.value.filename == "folder"
