"""The fence: what an encoder could leave for a decoder on an ordinary system, it cannot leave here. Every channel is first seen
to carry eight bytes between two plain processes; limits hold against programs that want all there is."""

import os
import sysconfig
import time
from pathlib import Path

import pytest

from fairway.proof import fence
from fairway.proof.fence import LIMITS
from fairway.proof.places import PACKAGES
from tests.proof import fenced
from tests.proof.fenced import plain, run, started

SECRET = b"8 bytes!"
INSIDE = f"{PACKAGES}/shared"
CALLS = """
import ctypes, gc, os, sys, time
for each in gc.get_objects():
    if type(each).__name__ == "Sandbox":
        type(each).__call__ = lambda *_: None  # the audit hook is switched off: what holds here is the kernel's
library = ctypes.CDLL(None, use_errno=True)
def call(name, *words):
    table = {"add_key": (248, 217), "keyctl": (250, 219), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27)}
    table |= {"mincore": (27, 232), "sysinfo": (99, 179), "futex": (202, 98), "fork": (57, 1000), "clone": (56, 220)}
    table |= {"execve": (59, 221), "socket": (41, 198), "unshare": (272, 97), "memfd_create": (319, 279), "getppid": (110, 173)}
    number = table[name][["x86_64", "aarch64"].index(os.uname().machine)]
    result = library.syscall(number, *words)
    return result if result >= 0 else -ctypes.get_errno()
"""
# What the encoder does and how the decoder finds it. `shared` is a file that both may read, `place` a folder for the plain
# processes' files, which stands for /tmp; `number` is the secret as an integer.
STORED = {
    "a file": ("open(place + 'x', 'wb').write(secret)", "found = open(place + 'x', 'rb').read()"),
    "a file in /dev/shm": ("open('/dev/shm/' + name, 'wb').write(secret)", "found = open('/dev/shm/' + name, 'rb').read()"),
    "where a link points": ("os.symlink(secret, place + 'x')", "found = os.readlink(os.fsencode(place) + b'x')"),
    "a folder's name": ("os.mkdir(os.fsencode(place) + secret)", "found = b' '.join(os.listdir(os.fsencode(place)))"),
    "an extended attribute": ("os.setxattr(shared, 'user.x', secret)", "found = os.getxattr(shared, 'user.x')"),
    "time of change": ("os.utime(shared, ns=(0, number))", "found = os.stat(shared).st_mtime_ns.to_bytes(8, 'big')"),
    "the size of a sparse file": (
        "[open(place + str(i), 'wb').truncate(int.from_bytes(secret[4 * i : 4 * i + 4], 'big')) for i in (0, 1)]",
        "found = b''.join(os.stat(place + str(i)).st_size.to_bytes(4, 'big') for i in (0, 1))",
    ),
    "permissions": (
        "[(open(f'{place}{i}', 'w'), os.chmod(f'{place}{i}', value)) for i, value in enumerate(secret)]",
        "found = bytes(os.stat(f'{place}{i}').st_mode & 0o777 for i in range(8))",
    ),
    "the content of a shared file": ("open(shared, 'wb').write(secret)", "found = open(shared, 'rb').read()"),
    "SysV shared memory": (
        """
library.shmat.restype = ctypes.c_void_p
identity = library.shmget(key, 8, 0o1666)
ctypes.memmove(library.shmat(identity, None, 0), secret, 8)
""",
        """
library.shmat.restype = ctypes.c_void_p
identity = library.shmget(key, 8, 0o666)
found = ctypes.string_at(library.shmat(identity, None, 0), 8)
library.shmctl(identity, 0, None)
""",
    ),
    "a SysV message queue": (
        "library.msgsnd(library.msgget(key, 0o1666), (1).to_bytes(8, 'little') + secret, 8, 0)",
        """
message, queue = ctypes.create_string_buffer(16), library.msgget(key, 0o666)
library.msgrcv(queue, message, 8, 0, 0o4000)
library.msgctl(queue, 0, None)
found = message.raw[8:]
""",
    ),
    "a SysV semaphore": (
        "[library.semctl(library.semget(key, 8, 0o1666), i, 16, value) for i, value in enumerate(secret)]",
        """
semaphores = library.semget(key, 8, 0o666)
found = bytes(library.semctl(semaphores, i, 12, 0) & 255 for i in range(8))
library.semctl(semaphores, 0, 0, 0)
""",
    ),
    "a POSIX message queue": (
        "library.mq_send(library.mq_open(b'/' + name.encode(), 0o102, 0o666, None), secret, 8, 0)",
        """
message, queue = ctypes.create_string_buffer(8192), library.mq_open(b'/' + name.encode(), 0)
library.mq_receive(queue, message, 8192, None)
found = message.raw[:8]
library.mq_unlink(b'/' + name.encode())
""",
    ),
    "a key in the user's keyring": (
        "call('add_key', b'user', name.encode(), secret, ctypes.c_size_t(8), -4)",
        """
content, identity = ctypes.create_string_buffer(8), call('keyctl', 10, -4, b'user', name.encode(), 0)
call('keyctl', 11, identity, content, ctypes.c_size_t(8))
call('keyctl', 9, identity, -4)
found = content.raw
""",
    ),
}
# The encoder still runs, and has printed "ready".
BESIDE = {
    "an abstract socket": (
        """
import socket
server = socket.socket(socket.AF_UNIX)
server.bind(chr(0) + name)
server.listen()
print("ready", flush=True)
server.accept()[0].send(secret)
""",
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect(chr(0) + name); found = s.recv(8)",
    ),
    "the loopback address": (
        """
import socket
server = socket.create_server(("127.0.0.1", port))
print("ready", flush=True)
server.accept()[0].send(secret)
""",
        "import socket; found = socket.create_connection(('127.0.0.1', port)).recv(8)",
    ),
    "the loopback address of IPv6": (
        """
import socket
server = socket.create_server(("::1", port), family=socket.AF_INET6)
print("ready", flush=True)
server.accept()[0].send(secret)
""",
        "import socket; found = socket.create_connection(('::1', port)).recv(8)",
    ),
    "the environment of another process": (
        """
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
print("ready", flush=True)
os.execve(sys.executable, [sys.executable, "-c", "import sys; sys.stdin.read()"], {"X": secret.decode()})
""",
        """
time.sleep(0.5)
found = b""
for process in os.listdir("/proc"):
    try: found += open(f"/proc/{process}/environ", "rb").read()
    except OSError: pass
""",
    ),
    "a lock on a file that both may read": (
        "import fcntl\nfile = open(shared)\nfcntl.flock(file, fcntl.LOCK_EX)\nprint('ready', flush=True)\nsys.stdin.read()",
        """
import fcntl
try: fcntl.flock(open(shared), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError: found = secret  # one bit is enough
""",
    ),
    "events on a file that both may read": (
        """
print("ready", flush=True)
for _ in range(300):
    open(shared).read()
    time.sleep(0.01)
""",
        """
events = call("inotify_init1", 0)
assert events >= 0 and call("inotify_add_watch", events, shared.encode(), 0x20) >= 0
found = os.read(events, 100) and secret
""",
    ),
    "a wake-up on a page that both may read": (
        """
import mmap
library.mmap.restype = ctypes.c_void_p
page = library.mmap(None, ctypes.c_size_t(4096), 1, 1, os.open(shared, 0), ctypes.c_long(0))
print("ready", flush=True)
for _ in range(300):
    call("futex", ctypes.c_void_p(page), 1, 1, None, None, 0)
    time.sleep(0.01)
""",
        """
library.mmap.restype = ctypes.c_void_p
page = library.mmap(None, ctypes.c_size_t(4096), 1, 1, os.open(shared, 0), ctypes.c_long(0))
value = ctypes.c_int.from_address(page).value
later = (ctypes.c_long * 2)(2, 0)
assert call("futex", ctypes.c_void_p(page), 0, value, later, None, 0) == 0
found = secret
""",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def namespaces(tmp_path_factory) -> None:
    if reason := fenced.namespaces_missing(tmp_path_factory.mktemp("probe") / "place"):
        pytest.skip(f"this system permits no {reason}")


@pytest.fixture
def prefix(tmp_path, monkeypatch) -> str:
    """The beginning of both programs. In the fence, the shared file is bound like a library's."""
    folder, shared = tmp_path / "common", tmp_path / "shared"
    folder.mkdir(mode=0o777)
    shared.write_bytes(b"shared by both")
    shared.chmod(0o666)
    places = fence.places()
    monkeypatch.setattr(fence, "places", lambda: places._replace(binds=places.binds | {INSIDE: str(shared)}))
    number = int.from_bytes(SECRET, "big")
    key, port = 0x10000000 + os.getpid(), 20000 + os.getpid() % 20000
    values = {"secret": SECRET, "number": number, "name": f"fairway-{os.getpid()}", "key": key, "port": port}
    values |= {"shared": str(shared), "place": f"{folder}/"}
    lines = [CALLS, *(f"{name} = {value!r}" for name, value in values.items())]
    return "\n".join([*lines, f"shared = {INSIDE!r} if os.path.exists({INSIDE!r}) else shared\n"])


def finding(prefix: str, how: str) -> str:
    """The program of the decoder, which prints what it found."""
    return f"{prefix}\nfound = None\n{how}\nprint('found', found if found is None else secret in found)\n"


@pytest.mark.parametrize("channel", STORED)
def test_nothing_is_left_for_a_later_process(channel, prefix, tmp_path):
    leave, find = (prefix + STORED[channel][0], finding(prefix, STORED[channel][1]))
    inside = [run(tmp_path / name, program) for name, program in (("encoder", leave), ("decoder", find))]
    assert "found True" not in inside[1].out
    outside = [plain(program).communicate()[0] for program in (leave, find)]
    if "key" not in channel or outside[1]:  # some kernels are built without keys
        assert outside[1] == "found True\n"


@pytest.mark.parametrize("channel", BESIDE)
def test_nothing_is_told_to_a_process_beside(channel, prefix, tmp_path):
    leave, find = (prefix + BESIDE[channel][0], finding(prefix, BESIDE[channel][1]))
    with started(tmp_path / "encoder", leave, stdin=-1) as encoder:
        encoder.stdout.readline()  # "ready", or its end
        decoder = run(tmp_path / "decoder", find)
        assert "found True" not in decoder.out
    encoder = plain(leave)
    assert encoder.stdout.readline() == "ready\n"
    found = plain(find).communicate()[0]
    encoder.communicate()
    assert found == "found True\n"


def test_reading_a_file_that_both_may_read_keeps_its_time_of_access(prefix, tmp_path):
    shared, program = tmp_path / "shared", prefix + "print(open(shared).read())"
    os.utime(shared, (1, 2))
    assert run(tmp_path / "inside", program).out == "shared by both\n"
    assert shared.stat().st_atime == 1
    plain(program).communicate()
    assert shared.stat().st_atime > 1


WHERE = [Path(sysconfig.get_path("purelib")), Path("/usr/local/share"), Path.home(), Path(fence.__file__).parent]


@pytest.mark.parametrize("folder", WHERE, ids=["the virtual environment", "/usr/local/share", "the home", "the repository"])
def test_what_lies_elsewhere_is_not_there(folder, prefix, tmp_path):
    path = folder / f"fairway-test-{os.getpid()}"
    if not os.access(folder, os.W_OK):
        pytest.skip(f"{folder} cannot be written")
    path.write_bytes(SECRET)
    path.chmod(0o644)
    try:
        program = finding(
            prefix, f"library.open.restype = ctypes.c_int; found = os.read(library.open({str(path)!r}.encode(), 0), 8)"
        )
        assert "found True" not in run(tmp_path / "inside", program).out
        assert plain(program).communicate()[0] == "found True\n"
    finally:
        path.unlink()


def test_the_environment_is_constant(tmp_path, monkeypatch):
    for name in ("LANG", "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, f"{os.environ.get(name, '')}:secret")
    program = "import os, sys; print(dict(os.environ), os.uname().nodename, sys.flags.no_site, os.getcwd(), os.getuid())"
    expected = {"PATH": "/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "HOME": "/work", "TMPDIR": "/work"}
    assert run(tmp_path / "inside", program).out == f"{expected} submission 1 /work 65534\n"


def test_no_open_files_come_with_it(tmp_path):
    program = "import os\nfor i in range(300):\n    try: print(i, os.fstat(i).st_size)\n    except OSError: pass"
    with (tmp_path / "a file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert run(tmp_path / "inside", program).out == "0 0\n1 0\n2 0\n3 0\n"  # 3: where refusals are written
        assert file.fileno() > 3


@pytest.mark.parametrize(
    "call",
    [
        "call('fork')",
        "call('clone', 17, 0, 0, 0, 0)",
        "call('execve', b'/bin/true', None, None)",
        "call('socket', 40, 1, 0)",
        "call('socket', 16, 3, 0)",
        "call('sysinfo', ctypes.create_string_buffer(200))",
        "call('mincore', ctypes.c_void_p(id(library) // 4096 * 4096), ctypes.c_size_t(4096), ctypes.create_string_buffer(9))",
        "call('unshare', 0x10000000)",
        "call('memfd_create', b'x', 0)",
        "library.kill(1, 9) or 1",
        "library.setpriority(0, 0, 5) or 1",
        "library.sethostname(b'x', 1) or 1",
    ],
)
def test_calls_that_lead_out_are_refused(call, tmp_path):
    assert run(
        tmp_path / "inside", f"{CALLS}\nresult = {call}\nprint(result if result != -1 else -ctypes.get_errno())"
    ).out in (
        "-1\n",
        "-38\n",  # fork is no call of its own on every machine
    )


def test_processes_of_the_system_are_not_seen(tmp_path):
    program = (
        f"{CALLS}\nprint(os.getpid(), call('getppid'), *(os.path.exists(x) for x in ('/proc/self', '/sys/fs', '/proc/1')))"
    )
    assert run(tmp_path / "inside", program).out == "2 1 False False False\n"


HUNGRY = {
    "memory": ("x = bytearray(1 << 30)\nprint('got it')", LIMITS._replace(memory=512 << 20), "MemoryError"),
    "its folder": (
        "for i in range(100): open(str(i), 'wb').write(bytes(1 << 20))\nprint('got it')",
        LIMITS._replace(disk=8 << 20),
        "No space left",
    ),
    "a file": (
        "open('x', 'wb').write(bytes(2 << 20))\nprint('got it')",
        LIMITS._replace(file=1 << 20),
        "File too large",
    ),
    "threads": (
        "import threading, time\nfor _ in range(200): threading.Thread(target=time.sleep, args=[1], daemon=True).start()\n"
        "print('got it')",
        LIMITS._replace(threads=50),
        "can't start new thread",
    ),
    "open files": (
        "import os\nfiles = [os.dup(0) for _ in range(200)]\nprint('got it')",
        LIMITS._replace(files=100),
        "Too many open files",
    ),
}


@pytest.mark.parametrize("what", HUNGRY)
def test_there_is_a_limit_of(what, tmp_path):
    program, limits, message = HUNGRY[what]
    ended = run(tmp_path / "inside", program, limits)
    assert ended.status == 1 and message in ended.errors and ended.out == ""
    assert run(tmp_path / "again", program).out == "got it\n"


def test_there_is_a_limit_of_time(tmp_path):
    begin = time.monotonic()
    ended = run(tmp_path / "inside", "import time; time.sleep(1000)", LIMITS._replace(seconds=1))
    assert ended.status == 128 + 9 and ended.report["refused"] == ["run for more than 1 s"]
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize("stream", [1, 2])
def test_output_without_end_is_cut_off(stream, tmp_path):
    ended = run(tmp_path / "inside", f"import os\nwhile True: os.write({stream}, b'x' * 65536)")
    assert len(ended.out if stream == 1 else ended.errors) == fenced.MOST and ended.status == 128 + 9


def test_killing_it_ends_all_of_it(tmp_path):
    program = "import os, threading, time\nthreading.Thread(target=time.sleep, args=[1000]).start()\nprint('ready', flush=True)"
    with started(tmp_path / "inside", program) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        assert process.stdout.read() == b""  # the last writer has ended
        assert process.wait() == 128 + 9


def test_the_files_that_it_is_given_cannot_be_changed(tmp_path):
    program = "import os\nfor how in (lambda: open('given', 'w'), lambda: os.remove('given'), lambda: os.utime('given')):\n"
    program += "    try: how()\n    except OSError as error: print(type(error).__name__)"
    assert run(tmp_path / "inside", program).out == "OSError\n" * 3
    assert (tmp_path / "inside/given").read_bytes() == b"a text"
