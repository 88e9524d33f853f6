"""The bytes that files take in the zip archive `submission.pyz`.

Packing needs the best zip method for a file; the stage `quant`, which fills a byte budget, needs the resulting bytes. With
CODE_BYTES it computes the size of a submission without building one, so that editing the decoder does not re-run it.
"""

import io
import zipfile

CODE_BYTES = 38_334  # of submission.pyz: everything but weights and tokenizer; a test compares it with an actual packing
MOST_BYTES = 1 << 28  # of all members, unpacked; the budget of the challenge is a sixteenth
PIECE = 1 << 12  # bytes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)


def smallest(content: bytes) -> tuple[int, int]:
    """The zip method that stores `content` in the fewest bytes (ties: the first of METHODS), and that number of bytes."""
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        for method in METHODS:
            archive.writestr(str(method), content, method, compresslevel=9)
        sizes = {method: archive.getinfo(str(method)).compress_size for method in METHODS}
    method = min(sizes, key=sizes.get)
    return method, sizes[method]


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member whose checksum is right. Raises KeyError, or what zipfile raises for a damaged one.

    Reads it in pieces: zipfile unpacks what it reads of LZMA at once, whatever size the header gives, and PIECE swells to
    30 MB at most.
    """
    if archive.getinfo(name).file_size > MOST_BYTES:
        raise zipfile.BadZipFile(f"{name!r} has more than {MOST_BYTES:,} bytes")
    with archive.open(name) as file:
        return b"".join(iter(lambda: file.read(PIECE), b""))
