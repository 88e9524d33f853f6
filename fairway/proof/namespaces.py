"""Start a program in namespaces of its own, in which no files exist but those named, and wait for it:
`python -I -S namespaces.py PLAN`, where PLAN is JSON with the fields of `Plan`.

User, mount, network, IPC, UTS, PID and cgroup namespaces. The root is an empty tmpfs; what the program may read is bound into
it read-only, from `binds`. Its working directory is a tmpfs of limited size. The first process there is this script, which
waits for the program and ends whatever is left. If this process ends, the kernel kills all of them.
Where the system permits no namespaces, the program starts without, in the folder, and the facts say what is missing.
Standard library only. Constants: linux/sched.h, linux/mount.h, linux/prctl.h.
"""

import contextlib
import ctypes
import json
import os
import platform
import resource
import signal
import struct
import sys
from typing import NamedTuple

NAMES = "user, mount, network, IPC, UTS, PID and cgroup namespaces"
SPACES = 0x10000000 | 0x00020000 | 0x40000000 | 0x08000000 | 0x04000000 | 0x20000000 | 0x02000000
NOSUID, NODEV, BIND, RECURSIVE, PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
MOUNT_READ_ONLY, MOUNT_NOSUID, MOUNT_NODEV, AT_RECURSIVE, AT_FDCWD, DETACH = 1, 2, 4, 0x8000, -100, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38
CAPABILITIES = struct.pack("<Ii", 0x20080522, 0), bytes(24)  # version and process; none of any kind
# Column of the machine: clone, pivot_root, mount_setattr, capset, keyctl.
CALLS = {"x86_64": (56, 155, 442, 126, 250), "aarch64": (220, 41, 442, 91, 219)}
JOIN_SESSION_KEYRING = 1
NOBODY = 65534  # user and group inside
STRANGERS = 1 << 30  # users outside, one per process if root starts it: none of their counters are shared
ROOT = "/proc"  # a folder that every Linux has; the new root is mounted over it
INHERITED = ("LD_LIBRARY_PATH",)  # without namespaces, some builds of Python need it
HOST, WORK = b"submission", "/work"
LIBRARY = ctypes.CDLL(None, use_errno=True)


class Plan(NamedTuple):
    program: list[str]  # inside
    fallback: list[str]  # the same where there are no namespaces
    environment: dict[str, str]
    folder: str  # its files are bound into the working directory; the working directory where there are no namespaces
    binds: dict[str, str]  # path inside → file or folder outside, read-only
    writable: dict[str, str]  # the same for folders that can be written; the facts name them as missing
    texts: dict[str, str]  # path inside → content
    links: dict[str, str]  # path inside → where it points
    emptied: list[str]  # folders below a bind whose content does not exist inside
    limits: dict[str, int]  # seconds, memory, disk, file, threads, files
    facts: int  # descriptor for what holds, as lines of JSON; the program does not have it
    kept: int  # descriptor that the program keeps


def checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def call(index: int, *arguments: int | bytes | None) -> int:
    """A system call of CALLS."""
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    return checked(LIBRARY.syscall(ctypes.c_long(CALLS[platform.machine()][index]), *words), f"call {index}")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    words = source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode() or None
    checked(LIBRARY.mount(*words), f"mount of {source}")


def read_only(target: str, flags: int, recursive: bool = True) -> None:
    """mount_setattr, Linux 5.12 or newer. A read-only mount keeps no time of access either."""
    attributes = struct.pack("<QQQQ", MOUNT_READ_ONLY | flags, 0, 0, 0)
    call(2, AT_FDCWD, target.encode(), AT_RECURSIVE if recursive else 0, attributes, len(attributes))


def bind(source: str, inside: str, flags: int = MOUNT_NOSUID | MOUNT_NODEV) -> None:
    target = ROOT + inside
    if os.path.isdir(source):  # noqa: PTH112  # pathlib would take 20 ms of each start
        os.makedirs(target, exist_ok=True)  # noqa: PTH103
    else:
        write(inside, "")
    mount(source, target, "", BIND | RECURSIVE)
    read_only(target, flags)


def write(inside: str, text: str) -> None:
    os.makedirs(os.path.dirname(ROOT + inside), exist_ok=True)  # noqa: PTH103, PTH120
    with open(ROOT + inside, "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)


def build(plan: Plan) -> None:
    """The new root, and nothing else below /."""
    os.umask(0o022)
    mount("none", "/", "", RECURSIVE | PRIVATE)
    mount("tmpfs", ROOT, "tmpfs", NOSUID, "size=8m,mode=755")
    for inside, source in plan.binds.items():
        bind(source, inside)
    for inside, source in plan.writable.items():
        os.makedirs(ROOT + inside, exist_ok=True)  # noqa: PTH103
        mount(source, ROOT + inside, "", BIND)
    for name in ("null", "zero", "urandom"):
        bind(f"/dev/{name}", f"/dev/{name}", MOUNT_NOSUID)
    for inside, text in plan.texts.items():
        write(inside, text)
    for inside, where in plan.links.items():
        if not os.path.lexists(ROOT + inside):
            os.makedirs(os.path.dirname(ROOT + inside), exist_ok=True)  # noqa: PTH103, PTH120
            os.symlink(where, ROOT + inside)  # noqa: PTH211
    for inside in plan.emptied:
        mount("tmpfs", ROOT + inside, "tmpfs", NOSUID | NODEV, "size=4k,mode=755")
        read_only(ROOT + inside, 0)
    os.mkdir(ROOT + WORK)  # noqa: PTH102
    options = f"size={plan.limits['disk']},nr_inodes=4096,mode=700,uid={NOBODY},gid={NOBODY}"
    mount("tmpfs", ROOT + WORK, "tmpfs", NOSUID | NODEV, options)
    for entry in list(os.scandir(plan.folder)):
        bind(entry.path, f"{WORK}/{entry.name}")
    os.chdir(ROOT)
    call(1, b".", b".")  # pivot_root
    checked(LIBRARY.umount2(b".", DETACH), "umount of the old root")
    os.chdir("/")
    read_only("/", MOUNT_NOSUID, recursive=False)
    checked(LIBRARY.sethostname(HOST, len(HOST)), "sethostname")
    checked(LIBRARY.setdomainname(HOST, len(HOST)), "setdomainname")


def give_up_privileges() -> None:
    if os.getuid() != NOBODY:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    call(3, *CAPABILITIES)
    with contextlib.suppress(OSError):  # a kernel without keys
        call(4, JOIN_SESSION_KEYRING, None)
    LIBRARY.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    LIBRARY.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which forgets it


def run(program: list[str], plan: Plan, folder: str) -> None:
    """Become the program, with limits, in a session of its own, with no open files but the standard streams and `kept`."""
    limits = plan.limits
    most = {
        resource.RLIMIT_DATA: limits["memory"],
        resource.RLIMIT_AS: limits["memory"] + (64 << 30),  # libraries reserve addresses that they never use
        resource.RLIMIT_FSIZE: limits["file"],
        resource.RLIMIT_NOFILE: limits["files"],
        resource.RLIMIT_CPU: limits["seconds"] * (os.cpu_count() or 1),
        resource.RLIMIT_CORE: 0,
    }
    if folder == WORK and sys.platform == "linux":
        most[resource.RLIMIT_NPROC] = limits["threads"]
    for kind, value in most.items():
        with contextlib.suppress(OSError, ValueError):  # a lower limit that was set outside stays
            resource.setrlimit(kind, (value, value))
    os.setsid()
    os.umask(0o077)
    os.chdir(folder)
    os.dup2(plan.kept, 3)
    os.closerange(4, 1 << 16)
    os.set_inheritable(3, True)
    os.execve(program[0], program, plan.environment | {"HOME": folder, "TMPDIR": folder})


def started(program: list[str], plan: Plan, folder: str) -> int:
    """The program's process id."""
    child = os.fork()
    if child:
        return child
    try:
        for number in (signal.SIGINT, signal.SIGALRM, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if sys.platform == "linux":
            LIBRARY.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        run(program, plan, folder)
    except BaseException as error:
        os.write(2, f"error: the program cannot be started: {error}\n".encode())
    os._exit(127)


def ended(child: int) -> int:
    """Wait for a process; its exit status, 128 and the signal if one ended it."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def say(plan: Plan, **facts: object) -> None:
    os.write(plan.facts, (json.dumps(facts) + "\n").encode())


def first_process(plan: Plan, go: int, state: int) -> None:
    """The first process of the namespaces: build, start, wait, end all others. Never returns."""
    status = 127
    try:
        os.read(go, 1)  # until the users are mapped
        if os.getuid() not in (0, NOBODY):
            raise OSError("no user could be mapped")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        build(plan)
        give_up_privileges()
        for inside in plan.binds:
            if not os.access(inside, os.R_OK):
                raise OSError(f"{inside} cannot be read by all users")
        child = started(plan.program, plan, WORK)
        os.write(state, b"ready")
        os.close(state)
        os.close(plan.kept)
        status = ended(child)
        with contextlib.suppress(OSError):
            os.kill(-1, signal.SIGKILL)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.write(state, f"{getattr(error, 'strerror', None) or error}".encode())
    os._exit(status)


def map_users(child: int) -> None:
    """Inside, the program is nobody. Outside it is who started it, or if that is root, a user that nothing belongs to."""
    root = os.geteuid() == 0
    for kind, own in (("uid", os.geteuid()), ("gid", os.getegid())):
        if kind == "gid" and not root:
            put(f"/proc/{child}/setgroups", "deny")
        put(f"/proc/{child}/{kind}_map", f"0 0 1\n{NOBODY} {STRANGERS + child} 1\n" if root else f"{NOBODY} {own} 1\n")


def put(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:  # noqa: PTH123
        file.write(text)


def enter(plan: Plan) -> int:
    """The id of the first process of new namespaces, in which the program has started; an OSError says why there is none."""
    if platform.machine() not in CALLS or sys.platform != "linux":
        raise OSError(f"not known on {platform.system()} {platform.machine()}")
    (go, going), (state, stating) = os.pipe(), os.pipe()
    child = call(0, SPACES | signal.SIGCHLD, 0, 0, 0, 0)
    if not child:
        os.close(going)
        os.close(state)
        first_process(plan, go, stating)
    os.close(go)
    os.close(stating)
    with contextlib.suppress(OSError):
        map_users(child)
    os.close(going)
    with open(state, "rb") as file:  # noqa: PTH123
        answer = file.read()
    if answer != b"ready":
        os.waitpid(child, 0)
        raise OSError(answer.decode() or "the first process ended")
    return child


def main(text: str) -> int:
    """The program's exit status."""
    plan = Plan(**json.loads(text))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        child = enter(plan)
        say(plan, holds=[NAMES], missing=[f"{name} can be written" for name in plan.writable])
    except OSError as error:
        say(plan, holds=[], missing=[f"{NAMES} ({error.strerror or error})"])
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        child = started(plan.fallback, plan._replace(environment=plan.environment | inherited), plan.folder)
    os.close(plan.kept)

    def too_late(*_: object) -> None:
        os.kill(child, signal.SIGKILL)
        say(plan, late=plan.limits["seconds"])

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(plan.limits["seconds"])
    return ended(child)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
