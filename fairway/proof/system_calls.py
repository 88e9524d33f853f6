"""A filter of system calls (seccomp) for a submission that has started: no further process or program, no socket, and none of
the calls by which two processes can signal each other through files that both may only read, or through the machine's counters.

Standard library only: sandbox.py runs it inside, where the repository does not exist. Numbers: the kernel's tables for
x86_64 and arm64; structures: linux/seccomp.h, linux/filter.h, linux/audit.h.
"""

import ctypes
import errno
import platform
import struct

LOAD, EQUAL, ANY_BIT, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06  # BPF instructions
ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; arguments have 8 bytes each, the lower half first
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, MODE_FILTER = 38, 22, 2
X32 = 0x40000000  # from here on x86_64 has the calls of another ABI
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column of the tables, AUDIT_ARCH
REFUSED, UNKNOWN = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS

FORBIDDEN = {
    # processes and programs
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "getpriority": (140, 141),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "ioprio_get": (252, 31),
    # the network, of which AF_VSOCK and others are outside all namespaces
    "socket": (41, 198),
    # memory, queues and keys with names
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # state of files that is seen by whoever may read them: locks, events, what is in memory
    "flock": (73, 32),
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "mincore": (27, 232),
    "fadvise64": (221, 223),
    "readahead": (187, 213),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # counters of the machine
    "sysinfo": (99, 179),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "ustat": (136, None),
    "syslog": (103, 116),
    "perf_event_open": (298, 241),
    # the kernel's doors
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
}
MISSING = {  # answered as by a kernel without them, so that libraries do what they did before
    "clone3": (435, 435),
    "io_uring_setup": (425, 425),
    "cachestat": (451, 451),
    "futex_waitv": (449, 449),
    "futex_wake": (454, 454),
    "futex_wait": (455, 455),
    "futex_requeue": (456, 456),
}
CLONE, FCNTL, FUTEX, PREADV2 = (56, 220), (72, 25), (202, 98), (327, 286)
CLONE_THREAD = 0x10000
# F_GETLK, F_SETLK, F_SETLKW, their open file description kinds, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ
LOCKS = (5, 6, 7, 36, 37, 38, 1024, 1026, 1031)
FUTEX_PRIVATE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_CLOCK_REALTIME = 128, 0, 9, 256
RWF_NOWAIT = 8  # would tell what is in memory


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def rule(number: int, answer: int) -> bytes:
    return instruction(EQUAL, number, 0, 1) + instruction(RETURN, answer)


def rule_by_argument(number: int, argument: int, tests: list[tuple[int, int]], matched: int, unmatched: int) -> bytes:
    """`matched` is the answer if any of the tests (an instruction and its value) of an argument's lower half holds."""
    body = [instruction(LOAD, ARGUMENTS + 8 * argument)]
    body += [instruction(test, value, len(tests) - index) for index, (test, value) in enumerate(tests)]
    body += [instruction(RETURN, unmatched), instruction(RETURN, matched)]
    return instruction(EQUAL, number, 0, len(body)) + b"".join(body)


def program(column: int, architecture: int) -> bytes:
    waits = [(ANY_BIT, FUTEX_PRIVATE), (EQUAL, FUTEX_WAIT), (EQUAL, FUTEX_WAIT_BITSET)]
    waits += [(EQUAL, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME)]  # threads that wait for another one's end
    rules = [
        instruction(LOAD, ARCHITECTURE) + instruction(EQUAL, architecture, 1) + instruction(RETURN, KILL),
        instruction(LOAD, NUMBER) + instruction(AT_LEAST, X32, 0, 1) + instruction(RETURN, UNKNOWN),
        rule_by_argument(CLONE[column], 0, [(ANY_BIT, CLONE_THREAD)], ALLOW, REFUSED),
        rule_by_argument(FCNTL[column], 1, [(EQUAL, command) for command in LOCKS], REFUSED, ALLOW),
        rule_by_argument(FUTEX[column], 1, waits, ALLOW, REFUSED),
        rule_by_argument(PREADV2[column], 5, [(ANY_BIT, RWF_NOWAIT)], REFUSED, ALLOW),
        *(rule(row[column], REFUSED) for row in FORBIDDEN.values() if row[column] is not None),
        *(rule(row[column], UNKNOWN) for row in MISSING.values()),
        instruction(RETURN, ALLOW),
    ]
    return b"".join(rules)


def restrict() -> bool:
    """Filter the system calls of this process from now on; False if the system cannot."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return False
    content = program(*MACHINES[platform.machine()])
    buffer = ctypes.create_string_buffer(content, len(content))
    head = struct.pack("HP", len(content) // 8, ctypes.addressof(buffer))
    library = ctypes.CDLL(None)
    words = [ctypes.c_ulong(word) for word in (0, 0, 0)]
    library.prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), *words)
    return library.prctl(PR_SET_SECCOMP, ctypes.c_ulong(MODE_FILTER), head, *words[:2]) == 0
