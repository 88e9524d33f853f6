"""Run a program where nothing exists but the interpreter and its libraries: what the verifier starts a decoder with.

`command` gives the words to start; they call this file again, as `alone.py ROOT PROGRAM…`, inside new user, mount, network,
IPC, UTS and PID namespaces of unshare(1). There the root becomes an empty file system, into which PLACES are bound read-only,
and a second user namespace takes away every right to change that. Standard library only; shares no code with fairway.
"""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

PROCESSOR = ["/proc/cpuinfo", "/sys/devices/system/cpu"]  # libraries choose their arithmetic by it
PLACES = ["/usr", "/lib", "/lib64", "/bin", sys.base_prefix, sys.prefix, "/dev/null", "/dev/zero", "/dev/urandom", *PROCESSOR]
ENVIRONMENT = {"HOME": "/alone", "TMPDIR": "/alone", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
SPACES = "--user --map-root-user --mount --net --ipc --uts --pid --fork --kill-child".split()  # noqa: SIM905
BIND, RECURSIVE, PRIVATE, DETACH = 1 << 12, 1 << 14, 1 << 18, 2  # linux/mount.h
NEW_USER = 0x10000000  # linux/sched.h
MOUNT_SETATTR, HERE, READ_ONLY = 442, -100, (1).to_bytes(8, "little") + bytes(24)
LIBRARY = ctypes.CDLL(None, use_errno=True)


def command(root: str, program: list[str]) -> list[str]:
    """`root`: an empty folder; `program`: words, with absolute paths below PLACES or in the working directory."""
    return ["unshare", *SPACES, sys.executable, "-I", __file__, root, *program]


def possible(root: str) -> bool:
    """Whether this system permits it."""
    try:
        return subprocess.run(command(root, ["/bin/true"]), cwd=root, capture_output=True).returncode == 0
    except FileNotFoundError:  # no unshare
        return False


def mount(source: str, target: str, kind: str | None, flags: int) -> None:
    words = source.encode(), target.encode(), kind and kind.encode(), ctypes.c_ulong(flags), None
    done(LIBRARY.mount(*words), f"mount of {source}")


def done(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def main(root: str, *program: str) -> None:
    given = {path.name: path.read_bytes() for path in Path().iterdir()}
    mount("none", "/", None, RECURSIVE | PRIVATE)
    mount("none", root, "tmpfs", 0)
    for place in dict.fromkeys(filter(os.path.exists, PLACES)):
        inside = Path(root + place)
        (inside if Path(place).is_dir() else inside.parent).mkdir(parents=True, exist_ok=True)
        inside.is_dir() or inside.touch()
        mount(place, str(inside), None, BIND | RECURSIVE)
        done(LIBRARY.syscall(MOUNT_SETATTR, HERE, str(inside).encode(), 0x8000, READ_ONLY, 32), f"read-only {place}")
    os.chdir(root)
    done(LIBRARY.pivot_root(b".", b"."), "pivot_root")
    done(LIBRARY.umount2(b".", DETACH), "umount of the old root")
    Path("/alone").mkdir()
    os.chdir("/alone")
    for name, content in given.items():
        Path(name).write_bytes(content)
    done(LIBRARY.unshare(NEW_USER), "unshare")
    os.execve(program[0], program, ENVIRONMENT)


if __name__ == "__main__":
    main(*sys.argv[1:])
