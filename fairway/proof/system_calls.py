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
REFUSED, UNKNOWN, GRANTED = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS, ERRNO  # granted: 0, without doing anything

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
    # state of files that is seen by whoever may read them: events, what is in memory
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
# Locks are granted and not taken: a process that is alone needs none, and others would see those on files that both may read.
FLOCK, SET_LOCK = (73, 32), (6, 7, 37, 38)  # the latter of fcntl: F_SETLK, F_SETLKW, and those of open file descriptions
CLONE, FCNTL, FUTEX, PREADV2 = (56, 220), (72, 25), (202, 98), (327, 286)
CLONE_THREAD = 0x10000
OF_FILES = (5, 36, 1024, 1026, 1031)  # F_GETLK, F_OFD_GETLK, F_SETLEASE, F_NOTIFY, F_SETPIPE_SZ
FUTEX_PRIVATE, FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_CLOCK_REALTIME = 128, 0, 9, 256


def instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def rule(number: int, answer: int) -> bytes:
    return instruction(EQUAL, number, 0, 1) + instruction(RETURN, answer)


def rule_by_argument(number: int, argument: int, answers: dict[int, int], otherwise: int = ALLOW, bits: int = 0) -> bytes:
    """Answers by the lower half of an argument: its value, or whether it has any of `bits`, which allows it."""
    body = [instruction(LOAD, ARGUMENTS + 8 * argument)]
    if bits:
        body += [instruction(ANY_BIT, bits, 0, 1), instruction(RETURN, ALLOW)]
    for value, answer in answers.items():
        body += [instruction(EQUAL, value, 0, 1), instruction(RETURN, answer)]
    body += [instruction(RETURN, otherwise)]
    return instruction(EQUAL, number, 0, len(body)) + b"".join(body)


def program(column: int, architecture: int) -> bytes:
    waits = dict.fromkeys(
        (FUTEX_WAIT, FUTEX_WAIT_BITSET, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME), ALLOW
    )  # for a thread's end
    locks = dict.fromkeys(SET_LOCK, GRANTED) | dict.fromkeys(OF_FILES, REFUSED)
    rules = [
        instruction(LOAD, ARCHITECTURE) + instruction(EQUAL, architecture, 1) + instruction(RETURN, KILL),
        instruction(LOAD, NUMBER) + instruction(AT_LEAST, X32, 0, 1) + instruction(RETURN, UNKNOWN),
        rule_by_argument(CLONE[column], 0, {}, REFUSED, CLONE_THREAD),
        rule_by_argument(FUTEX[column], 1, waits, REFUSED, FUTEX_PRIVATE),
        rule_by_argument(PREADV2[column], 5, {0: ALLOW}, REFUSED),  # RWF_NOWAIT would tell what is in memory
        rule_by_argument(FCNTL[column], 1, locks),
        rule(FLOCK[column], GRANTED),
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
