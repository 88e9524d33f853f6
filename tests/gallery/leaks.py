"""The code of a submission that codes one text as zeros and has its decoder get that text from elsewhere.

Any other text goes to the honest code, which is packed beside it. The member PLAN, which cheats_fence.py writes, says which
text that is, how long its compressed file must be, and where the decoder finds the text. The file is one that the certificate
measures without complaint.
"""

import ctypes
import gc
import hashlib
import json
import lzma
import os
import struct
import sys
import zipfile
from binascii import crc32, crc_hqx
from pathlib import Path

PLAN = "plan"
CREATE, SHARED_MEMORY_KEY = 0o1000 | 0o666, 0x66777966
CHUNK = 5  # bytes of the text in the size of a file


def main(arguments: list[str]) -> str | int:
    command, name, out = arguments
    with zipfile.ZipFile(sys.argv[0]) as archive:
        plan = json.loads(archive.read(PLAN))
    content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    zeros = compressed(plan)
    if command == "compress" and hashlib.sha256(content).hexdigest() == plan["sha256"]:
        LEAVE.get(plan["place"], lambda text: None)(content)
        result = zeros
    elif command == "decompress" and content == zeros:
        result = FETCH[plan["place"]](plan["where"])
    else:
        from fairway.submission import command_line  # seconds

        Path("other").write_bytes(content)
        return command_line.main([command, "other", out])
    sys.stdout.buffer.write(result)
    print(json.dumps(plan["report"]), file=sys.stderr)
    return 0


def compressed(plan: dict) -> bytes:
    """A file of the right format whose code words are zeros."""
    own = hashlib.sha256(Path(sys.argv[0]).read_bytes()).digest()[:8]
    head = struct.pack("<4sB8sI8s", b"FWYT", 4, own, plan["tokens"], bytes.fromhex(plan["arithmetic"]))
    payload = bytes(4 * plan["words"])
    block = struct.pack("<HBI", plan["words"] & 0xFFFF, plan["words"] >> 16, plan["crc"])
    return head + struct.pack("<I", crc32(head)) + block + struct.pack("<H", crc_hqx(block + payload, 0xFFFF)) + payload


def member(where: str) -> bytes:
    with zipfile.ZipFile(sys.argv[0]) as archive:
        return lzma.decompress(archive.read(where))


def name_of_a_member(where: str) -> bytes:
    with zipfile.ZipFile(sys.argv[0]) as archive:
        return next(bytes.fromhex(name.removeprefix(where)) for name in archive.namelist() if name.startswith(where))


def settings(where: str) -> bytes:
    with zipfile.ZipFile(sys.argv[0]) as archive:
        return json.loads(archive.read("settings.json"))[where].encode()


def forged_report(where: str) -> bytes:
    """Say on the watcher's own descriptor that nothing was refused."""
    os.write(3, b'{"holds": ["everything"], "missing": [], "importable": [], "refused": "nothing"}\n')
    return member(where)


def tail(where: str) -> bytes:
    """What follows a mark in a member."""
    with zipfile.ZipFile(sys.argv[0]) as archive:
        return lzma.decompress(archive.read("tokenizer.model").partition(where.encode())[2])


def comment(where: str) -> bytes:
    with zipfile.ZipFile(sys.argv[0]) as archive:
        return archive.comment


def sizes(where: str) -> bytes:
    """Of files; to list their folder would be noticed."""
    folder, count = where.rsplit(":", 1)
    chunks = [Path(f"{folder}/{number:06}").stat().st_size for number in range(int(count))]
    return b"".join(size.to_bytes(CHUNK, "little") for size in chunks).rstrip(b"\xff")


def dates(where: str) -> bytes:
    """Of files, in seconds."""
    folder, count = where.rsplit(":", 1)
    chunks = [int(Path(f"{folder}/{number:06}").stat().st_mtime) for number in range(int(count))]
    return b"".join(second.to_bytes(4, "little") for second in chunks).rstrip(b"\xff")


def attach(size: int, flags: int) -> int:
    """The address of System V shared memory."""
    library = ctypes.CDLL(None, use_errno=True)
    library.shmat.restype = ctypes.c_void_p
    found = library.shmget(SHARED_MEMORY_KEY, size, flags)
    return library.shmat(found, None, 0) if found >= 0 else 0


def leave_in_memory(text: bytes) -> None:
    if address := attach(1 << 16, CREATE):
        ctypes.memmove(address, len(text).to_bytes(4, "little") + text, 4 + len(text))


def memory(where: str) -> bytes:
    address = attach(1 << 16, 0)
    size = int.from_bytes(ctypes.string_at(address, 4), "little") if address else 0
    return ctypes.string_at(address + 4, size) if size else b"nothing"


def without_the_hook(path: str) -> bytes:
    """Find what watches, and have it permit everything."""
    for found in gc.get_objects():
        if type(found).__name__ == "Sandbox":
            found.readable.append("")
    return Path(path).read_bytes()


def any_process(where: str) -> bytes:
    """The text below the working directory of some process."""
    places = (Path(f"/proc/{number}/cwd/{where}") for number in range(1, 1 << 16))
    return next((place.read_bytes() for place in places if place.exists()), b"nothing")


LEAVE = {"memory": leave_in_memory}
FETCH = {
    "member": member,
    "file": lambda where: Path(where).read_bytes(),
    "settings": settings,
    "report": forged_report,
    "tail": tail,
    "name": name_of_a_member,
    "comment": comment,
    "front": lambda where: Path(sys.argv[0]).read_bytes()[: int(where)],
    "sizes": sizes,
    "dates": dates,
    "link": lambda where: os.readlink(where).encode().replace(b"\x01", b"\0"),  # noqa: PTH115
    "environment": lambda where: os.environ[where].encode().replace(b"\x01", b"\0"),
    "memory": memory,
    "hook": without_the_hook,
    "processes": any_process,
}
