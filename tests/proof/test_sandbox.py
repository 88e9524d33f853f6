"""The sandbox, in real processes: an honest program passes, and each way out of the folder is refused and written down."""

import ctypes
import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fairway.proof import sandbox
from fairway.proof.round_trip import INHERITED

HONEST = """
import sys, numba, numpy, sentencepiece, constriction, torch, llvmlite.binding
assert sys.argv == ["submission.pyz", "compress", "given", "made"]
assert numba.njit(lambda x: x + 1)(1) == 2 and llvmlite.binding.get_host_cpu_name()
torch.optim.SGD([torch.zeros(3, requires_grad=True)])
import tempfile, pathlib
with tempfile.TemporaryFile() as file:
    file.write(b"mine")
pathlib.Path("made").write_bytes(pathlib.Path("given").read_bytes())
"""
LANDLOCK = sys.platform == "linux" and ctypes.CDLL(None).syscall(sandbox.CREATE_RULESET, None, 0, 1) > 0


def run(folder: Path, program: str, *path: Path) -> tuple[subprocess.CompletedProcess, dict]:
    """The program as a submission's __main__.py, and the report on it."""
    place = folder / "place"
    place.mkdir()
    with zipfile.ZipFile(place / "submission.pyz", "w") as archive:
        archive.writestr("__main__.py", program)
    (place / "given").write_bytes(b"a text")
    command = [sys.executable, "-I", sandbox.__file__, "../report", "submission.pyz", "compress", "given", "made"]
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ} | {"USER": "submission"}
    finished = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    return finished, json.loads((folder / "report").read_text())


def test_an_honest_program_with_all_its_libraries_is_left_in_peace(tmp_path):
    finished, report = run(tmp_path, HONEST)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "place/made").read_bytes() == b"a text"
    assert report["refused"] == [] and report["importable"] == []


def refused(folder: Path, program: str) -> list[str]:
    """What is refused to a program that must end in a PermissionError."""
    finished, report = run(folder, program)
    assert finished.returncode == 1 and "PermissionError" in finished.stderr, finished.stderr
    return report["refused"]


@pytest.mark.parametrize(
    "how",
    [
        "open({path!r})",
        "import os; os.open({path!r}, os.O_RDONLY)",
        "import os; os.symlink({path!r}, 'mine'); open('mine')",
        "open('../val.txt')",
        "import os; open(f'/proc/{{os.getpid()}}/cwd/../val.txt')",
        "import numpy; numpy.fromfile({path!r})",
        "import ctypes; ctypes.CDLL({path!r})",
    ],
)
def test_a_file_outside_is_refused_by_name(tmp_path, how):
    path = os.path.realpath(tmp_path / "val.txt")
    Path(path).write_text("the text")
    [line] = refused(tmp_path, how.format(path=path))
    assert line.split(" ", 1)[1] == path


def test_a_file_cannot_be_brought_in_or_left_behind(tmp_path):
    (tmp_path / "val.txt").write_text("the text")
    assert refused(tmp_path, "import os; os.link('../val.txt', 'mine')") == [
        f"os.link {os.path.realpath(tmp_path / 'val.txt')}"
    ]


@pytest.mark.parametrize("place", ["/dev/shm/left", "/tmp/left", "../left", "/usr/left"])
def test_nothing_is_written_outside(tmp_path, place):
    [line] = refused(tmp_path, f"open({place!r}, 'w')")
    assert line == f"open {os.path.realpath(tmp_path / 'place' / place)}" and not Path(place).exists()


def test_a_refusal_that_is_swallowed_is_written_down_all_the_same(tmp_path):
    program = "import os\ntry:\n    open('/root/secret')\nexcept OSError:\n    os._exit(0)\n"
    finished, report = run(tmp_path, program)
    assert finished.returncode == 0 and report["refused"] == ["open /root/secret"]


def test_a_socket_is_refused_and_so_is_a_name(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        lines = ["import socket", "try: socket.getaddrinfo('example.org', 80)", "except OSError: pass"]
        found = refused(tmp_path, "\n".join([*lines, f"socket.socket().connect({address!r})"]))
        assert found == ["socket.getaddrinfo example.org", f"socket.connect {address}"]


@pytest.mark.parametrize(
    "how", ["os.system('true')", "subprocess.run(['true'])", "os.fork()", "os.execv('/bin/true', ['true'])"]
)
def test_another_process_is_refused(tmp_path, how):
    [line] = refused(tmp_path, f"import os, subprocess\n{how}")
    assert line.split(" ")[0] in sandbox.PROCESSES


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_code_in_c_is_refused_by_the_kernel(tmp_path):
    (tmp_path / "val.txt").write_text("the text")
    finished, report = run(tmp_path, "import ctypes, sys; sys.exit(ctypes.CDLL(None).open(b'../val.txt', 0) + 40)")
    assert finished.returncode == 39  # open gives −1 and no file
    assert report["files"] == "Landlock and audit hook" and report["refused"] == []  # Python has not seen it


def test_our_packages_come_from_the_submission_only(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "OURS", ("json", "surely_nobodys"))
    monkeypatch.setattr(sandbox, "own_network", lambda: False)
    monkeypatch.setattr(sandbox, "own_files", lambda *places: False)
    monkeypatch.setattr(sandbox.sys, "addaudithook", lambda hook: None)
    monkeypatch.setattr(sandbox.sys, "argv", [])
    monkeypatch.setattr(sandbox.sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.setenv("TMPDIR", "")
    (tmp_path / "submission.py").write_text("")
    sandbox.main(str(tmp_path / "report"), str(tmp_path / "submission.py"))
    report = json.loads((tmp_path / "report").read_text())
    assert report == {"network": "sockets refused", "files": "audit hook", "refused": [], "importable": ["json"]}
