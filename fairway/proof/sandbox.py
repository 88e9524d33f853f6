"""What watches a submission from within: `python -I -S sandbox.py MODE PACKAGES DESCRIPTOR submission.pyz compress given made`.

MODE is "fenced" inside namespaces (namespaces.py), where other files and other processes do not exist. Otherwise, "open", the
kernel refuses them as far as it can: a network namespace, and Landlock for files. In both, system calls are filtered
(system_calls.py). On every platform an audit hook refuses the same accesses in Python, and writes each as a line of JSON
to DESCRIPTOR. Code that tampers with the interpreter can switch the hook off: no claim rests on it where there are namespaces.
"""

import ctypes
import errno
import importlib.util
import json
import os
import runpy
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

OURS = ("fairway", "stages")  # packages that must come from the submission
LIBRARIES = ("/usr", "/lib", "/lib64", "/etc", "/sys/devices/system")
FACTS = ("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/dev/zero", "/dev/random", "/dev/urandom")
NULL = "/dev/null"
HARMLESS = ("socket.__new__", "socket.gethostname")
PROCESSES = ("subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system")
CHANGES = {"os.link": 2, "os.rename": 2, "os.symlink": 2, "os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.truncate": 1}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
MOST_REFUSED, MOST_CHARACTERS = 20, 300  # lines in the report, and of one
# From linux/sched.h, linux/prctl.h and linux/landlock.h.
CLONE_NEWUSER, CLONE_NEWNET, PR_SET_NO_NEW_PRIVS = 0x10000000, 0x40000000, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF, PATH_BENEATH = 444, 445, 446, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, EVERYTHING = 1, 2, 4, 8, (1 << 13) - 1


def own_network() -> bool:
    """Enter a network namespace in which no interface is up; False if the system does not permit it."""
    library, attempts = ctypes.CDLL(None), (CLONE_NEWUSER | CLONE_NEWNET, CLONE_NEWNET)
    return sys.platform == "linux" and any(library.unshare(flags) == 0 for flags in attempts)


def own_files(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Have the kernel refuse all other files from now on (Landlock, Linux 5.13 or newer); False if it cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    handled = struct.pack("<Q", EVERYTHING)
    rules = library.syscall(CREATE_RULESET, handled, len(handled), 0) if sys.platform == "linux" else -1
    if rules < 0:
        return False
    reading = EXECUTE | READ_FILE | READ_DIR
    for path, access in [(path, reading) for path in readable] + [(path, EVERYTHING) for path in writable]:
        if Path(path).exists():
            descriptor = os.open(path, os.O_PATH)
            allowed = access if Path(path).is_dir() else access & (EXECUTE | WRITE_FILE | READ_FILE)
            library.syscall(ADD_RULE, rules, PATH_BENEATH, struct.pack("<Qi", allowed, descriptor), 0)
            os.close(descriptor)
    library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return library.syscall(RESTRICT_SELF, rules, 0) == 0


class Sandbox:
    """The audit hook. It writes each refusal at once, so the line is there however the process ends."""

    def __init__(self, readable: Iterable[str], writable: Iterable[str], descriptor: int):
        self.writable = [os.path.realpath(path) for path in writable]
        self.readable = [os.path.realpath(path) for path in readable] + self.writable
        self.descriptor, self.refused = descriptor, []

    def __call__(self, event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            self.check("open", path, self.writable if (flags or 0) & WRITING else self.readable)
        elif event == "ctypes.dlopen" and os.sep in str(arguments[0]):
            self.check("load", arguments[0], self.readable)
        elif event in CHANGES:
            for path in arguments[: CHANGES[event]]:
                self.check(event, path, self.writable)
        elif event in ("os.listdir", "os.scandir"):
            self.check("list", arguments[0] or os.curdir, self.readable)
        elif event in PROCESSES or (event.startswith("socket.") and event not in HARMLESS):
            words = [str(argument) for argument in arguments if isinstance(argument, str | bytes | tuple | list)]
            self.refuse(event, " ".join(words[:1]))

    def check(self, what: str, path: str | bytes | int, allowed: list[str]) -> None:
        """Refuse a path that is not in one of the allowed places; an integer is a file that is open already."""
        if isinstance(path, int):
            return
        real = os.path.realpath(os.fsdecode(path))
        if not any(real == place or real.startswith(place + os.sep) for place in allowed):
            self.refuse(what, real)

    def refuse(self, what: str, about: str) -> None:
        line = f"{what} {about}".rstrip()[:MOST_CHARACTERS]
        if line not in self.refused and len(self.refused) < MOST_REFUSED:
            self.refused.append(line)
            write(self.descriptor, {"refused": line})
        raise PermissionError(errno.EACCES, f"refused to a submission that runs alone: {line}", about)


def write(descriptor: int, content: dict) -> None:
    os.write(descriptor, (json.dumps(content) + "\n").encode())


def shut(mode: str, readable: list[str], writable: list[str]) -> tuple[list[str], list[str]]:
    """Have the kernel refuse what it can; what holds from now on, and what is missing."""
    calls = runpy.run_path(str(Path(__file__).with_name("system_calls.py")))["restrict"]
    attempts = {} if mode == "fenced" else {"network namespace": own_network, "Landlock": lambda: own_files(readable, writable)}
    found = {name: attempt() for name, attempt in (attempts | {"filter of system calls": calls}).items()}
    return [*(name for name in found if found[name]), "audit hook"], [name for name in found if not found[name]]


def main(mode: str, packages: str, descriptor: str, *arguments: str) -> None:
    """Shut the process in and run a zip application with its arguments. `packages`: folders of libraries."""
    folder = str(Path.cwd())
    sys.path += packages.split(os.pathsep)
    importable = [name for name in OURS if importlib.util.find_spec(name)]
    libraries = [sys.prefix, sys.base_prefix, *packages.split(os.pathsep), *LIBRARIES]
    readable, writable = [*libraries, *FACTS, __file__], [folder, NULL]  # torch reads the source of the module that imports it
    holds, missing = shut(mode, readable, writable)
    write(int(descriptor), {"holds": holds, "missing": missing, "importable": importable})
    sys.addaudithook(Sandbox(readable, writable, int(descriptor)))
    sys.argv = list(arguments)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(*sys.argv[1:])
