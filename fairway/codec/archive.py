"""The bytes that files take in the zip archive `submission.pyz`.

Packing needs the best zip method for a file; the stage `quant`, which fills a byte budget, needs the resulting bytes. With
CODE_BYTES it computes the size of a submission without building one, so that editing the decoder does not re-run it.
"""

import io
import zipfile

CODE_BYTES = 36_709  # of submission.pyz: everything but weights and tokenizer; a test compares it with an actual packing
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)


def smallest(content: bytes) -> tuple[int, int]:
    """The zip method that stores `content` in the fewest bytes (ties: the first of METHODS), and that number of bytes."""
    sizes = {method: _stored_bytes(content, method) for method in METHODS}
    method = min(sizes, key=sizes.get)
    return method, sizes[method]


def _stored_bytes(content: bytes, method: int) -> int:
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        archive.writestr("member", content, method, compresslevel=9)
        return archive.getinfo("member").compress_size
