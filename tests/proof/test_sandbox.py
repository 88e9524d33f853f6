"""What watches a submission, in real processes, with namespaces and without: an honest program passes, and each way out of the
folder is refused and written down."""

import ctypes
import os
import socket
import sys
from pathlib import Path

import pytest

from fairway.proof import fence, sandbox
from tests.proof.fenced import Ended, run

HONEST = """
import sys, numba, numpy, sentencepiece, constriction, torch, llvmlite.binding
assert sys.argv == ["submission.pyz", "compress", "given", "-"]
assert numba.njit(lambda x: x + 1)(1) == 2 and llvmlite.binding.get_host_cpu_name()
torch.optim.SGD([torch.zeros(3, requires_grad=True)])
import fcntl, tempfile, threading, pathlib
thread = threading.Thread(target=torch.zeros, args=[3])
thread.start()
thread.join()
with tempfile.NamedTemporaryFile(dir=".") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(b"mine")
print(pathlib.Path("given").read_text(), end="")
"""
LANDLOCK = sys.platform == "linux" and ctypes.CDLL(None).syscall(sandbox.CREATE_RULESET, None, 0, 1) > 0
NAMESPACES = "user, mount, network, IPC, UTS, PID and cgroup namespaces"


@pytest.fixture
def without_namespaces(monkeypatch) -> None:
    """What is to be bound does not exist, so the fence cannot be built."""
    places = fence.places()
    monkeypatch.setattr(fence, "places", lambda: places._replace(binds={"/none": "/does not exist"}))


@pytest.fixture(params=["with namespaces", "without namespaces"])
def each_way(request) -> None:
    if request.param == "without namespaces":
        request.getfixturevalue("without_namespaces")


@pytest.mark.usefixtures("each_way")
def test_an_honest_program_with_all_its_libraries_is_left_in_peace(tmp_path):
    ended = run(tmp_path / "place", HONEST)
    assert ended.status == 0, ended.errors
    assert ended.out == "a text"
    assert ended.report["refused"] == [] and ended.report["importable"] == []


@pytest.mark.usefixtures("without_namespaces")
def test_what_is_missing_is_named(tmp_path):
    report = run(tmp_path / "place", "").report
    assert report["missing"][0] == f"{NAMESPACES} (mount of /does not exist: No such file or directory)"
    assert NAMESPACES not in report["holds"] and report["holds"][-1] == "audit hook"
    assert ("Landlock" in report["holds"]) == LANDLOCK and ("Landlock" in report["missing"]) != LANDLOCK
    assert fence.sentence(report).startswith(f"{report['holds'][0]}, ") and f"; missing: {NAMESPACES}" in fence.sentence(report)


def refused(folder: Path, program: str) -> list[str]:
    """What is refused to a program that must end in a PermissionError."""
    ended: Ended = run(folder / "place", program)
    assert ended.status == 1 and "PermissionError" in ended.errors, ended.errors
    return ended.report["refused"]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(
    "how",
    [
        "open({path!r})",
        "import os; os.open({path!r}, os.O_RDONLY)",
        "import os; os.symlink({path!r}, 'mine'); open('mine')",
        "import numpy; numpy.fromfile({path!r})",
        "import ctypes; ctypes.CDLL({path!r})",
    ],
)
def test_a_file_outside_is_refused_by_name(tmp_path, how):
    path = os.path.realpath(tmp_path / "val.txt")
    Path(path).write_text("the text")
    [line] = refused(tmp_path, how.format(path=path))
    assert line.split(" ", 1)[1] == path


@pytest.mark.usefixtures("without_namespaces")
@pytest.mark.parametrize("how", ["open('../val.txt')", "import os; open(f'/proc/{os.getpid()}/cwd/../val.txt')"])
def test_a_file_beside_the_folder_is_refused_by_name(tmp_path, how):
    (tmp_path / "val.txt").write_text("the text")
    assert refused(tmp_path, how) == [f"open {os.path.realpath(tmp_path / 'val.txt')}"]


@pytest.mark.usefixtures("without_namespaces")
def test_a_file_cannot_be_brought_in_or_left_behind(tmp_path):
    (tmp_path / "val.txt").write_text("the text")
    assert refused(tmp_path, "import os; os.link('../val.txt', 'mine')") == [
        f"os.link {os.path.realpath(tmp_path / 'val.txt')}"
    ]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("place", ["/dev/shm/left", "/tmp/left", "/usr/left"])
def test_nothing_is_written_outside(tmp_path, place):
    assert refused(tmp_path, f"open({place!r}, 'w')") == [f"open {place}"]
    assert not Path(place).exists()


@pytest.mark.usefixtures("each_way")
def test_a_refusal_that_is_swallowed_is_written_down_all_the_same(tmp_path):
    program = "import os\ntry:\n    open('/root/secret')\nexcept OSError:\n    os._exit(0)\n"
    ended = run(tmp_path / "place", program)
    assert ended.status == 0 and ended.report["refused"] == ["open /root/secret"]


@pytest.mark.usefixtures("each_way")
def test_a_socket_is_refused_and_so_is_a_name(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        lines = ["import socket", "try: socket.getaddrinfo('example.org', 80)", "except OSError: pass"]
        lines += [f"socket.create_connection({address!r})"]
        found = refused(tmp_path, "\n".join(lines))
        assert found[0] == "socket.getaddrinfo example.org" and found[1].startswith("socket.")


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(
    "how", ["os.system('true')", "subprocess.run(['true'])", "os.fork()", "os.execv('/bin/true', ['true'])"]
)
def test_another_process_is_refused(tmp_path, how):
    [line] = refused(tmp_path, f"import os, subprocess\n{how}")
    assert line.split(" ")[0] in sandbox.PROCESSES


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
@pytest.mark.usefixtures("without_namespaces")
def test_code_in_c_is_refused_by_the_kernel(tmp_path):
    (tmp_path / "val.txt").write_text("the text")
    ended = run(tmp_path / "place", "import ctypes, sys; sys.exit(ctypes.CDLL(None).open(b'../val.txt', 0) + 40)")
    assert ended.status == 39  # open gives −1 and no file
    assert "Landlock" in ended.report["holds"] and ended.report["refused"] == []  # Python has not seen it


@pytest.mark.usefixtures("without_namespaces")
def test_our_packages_come_from_the_submission_only(tmp_path, monkeypatch):
    """A copy of the repository's package among the libraries is named."""
    (tmp_path / "libraries/fairway").mkdir(parents=True)
    (tmp_path / "libraries/fairway/__init__.py").write_text("")
    places = fence.places()
    monkeypatch.setattr(fence, "places", lambda: places._replace(outside=[str(tmp_path / "libraries")]))
    assert run(tmp_path / "place", "").report["importable"] == ["fairway"]


@pytest.mark.usefixtures("each_way")
def test_a_process_cannot_take_back_what_it_has_done(tmp_path):
    """It finds the hook among all objects, switches it off, and writes a report of its own where the hook does."""
    program = """
import gc, os
[hook] = [each for each in gc.get_objects() if type(each).__name__ == "Sandbox"]
try: open("/root/secret")
except OSError: pass
hook.readable = ["/"]
os.write(3, b'{"holds": ["everything"], "missing": [], "importable": []}\\n[[[\\n')
"""
    report = run(tmp_path / "place", program).report
    assert report["refused"][0] == "open /root/secret" and len(report["refused"]) == 3
    assert "everything" not in report["holds"]
