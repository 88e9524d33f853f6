"""A submission of a few lines that speaks the real one's commands, with zlib for a network; tests add the cheats to it."""

import io
import json
import zipfile

from fairway.submission.packing import SETTINGS_BYTES

PROGRAM = """
import binascii, hashlib, json, struct, sys, time, zlib
command, given, made = sys.argv[1:]
source = sys.stdin.buffer if given == "-" else open(given, "rb")
target = sys.stdout.buffer if made == "-" else open(made, "wb")
content = source.read() if READS else b""
NAME = b"arithmetic of a stand-in"  # on bytes as tokens
def compress(text):
    payload, count = zlib.compress(text), len(text)
    payload += bytes(-len(payload) % 4)
    own, name = (hashlib.sha256(named).digest()[:8] for named in (open(sys.argv[0], "rb").read(), NAME))
    head = struct.pack("<4sB8sI8s", b"FWYT", 4, own, count, name)
    tokens = b"".join(struct.pack("<H", value + 4 if value else 1) for value in text)
    block = struct.pack("<HBI", len(payload) // 4, 0, zlib.crc32(tokens))
    block += struct.pack("<H", binascii.crc_hqx(block + payload, 0xFFFF)) + payload
    return head + struct.pack("<I", zlib.crc32(head)) + block
def decompress(coded):
    return zlib.decompressobj().decompress(coded[29 + 9 :])
#CHEAT
result = (compress if command == "compress" else decompress)(content)
target.write(result)
target.flush()
text = content if command == "compress" else result
report = {"bytes": len(text), "tokens": len(text), "blocks": 1, "start_seconds": 0.5, "seconds": 2.0}
if command == "compress":
    report |= {"worst_sum": 1.0, "normalised_positions": -(-len(text) // 16)}
print(json.dumps(report), file=sys.stderr if made == "-" else sys.stdout)
"""


def submission(cheat: str = "", members: dict[str, bytes] | None = None, stdin: bool = True) -> bytes:
    """A zip application with empty settings at its end; `cheat` is code that runs before it does its work, and after it has
    read its input, unless not `stdin`: what comes through standard input is then left to the cheat."""
    stream = io.BytesIO()
    reads = "True" if stdin else 'given != "-"'
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("__main__.py", PROGRAM.replace("#CHEAT", cheat).replace("READS", reads))
        for name, content in ({"code": b"", "model.fwy": b""} | (members or {})).items():
            archive.writestr(name, content)
        archive.writestr("settings.json", json.dumps({}).ljust(SETTINGS_BYTES))
    return stream.getvalue()
