"""What the files of `submission.pyz` take in its zip archive.

Packing asks how to store a file; the stage `quant`, which fills a byte budget, asks how many bytes that will be. It can
so learn the size of a submission without the code that is packed: editing the decoder quantises nothing again.
"""

import io
import zipfile

CODE_BYTES = 35_574  # of submission.pyz: all but weights and tokenizer; a test holds it to what packing makes
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA)


def smallest(content: bytes) -> tuple[int, int]:
    """The zip method that stores `content` in the fewest bytes (of equal ones the first of METHODS), and these bytes."""
    sizes = {method: _stored_bytes(content, method) for method in METHODS}
    method = min(sizes, key=sizes.get)
    return method, sizes[method]


def _stored_bytes(content: bytes, method: int) -> int:
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        archive.writestr("member", content, method, compresslevel=9)
        return archive.getinfo("member").compress_size
