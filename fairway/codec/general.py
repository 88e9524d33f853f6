"""General-purpose compressors for the weights, for comparison with published systems.

zstd at level 22, LZMA at 9e (#1185, #885), brotli at 11 (#1394). Each decompressor gets the expected size and stops when the
stream would exceed it. Libraries are imported when they are chosen: by default `submission.pyz` needs none of them.
"""

import lzma

CODERS = ("zstd", "lzma", "brotli")
SMALLEST_DICTIONARY = 4096  # bytes; LZMA's own limit
LZMA_OVERHEAD = 1 << 20  # bytes allowed to its decoder beside the dictionary; it takes a tenth of that


def compress(data: bytes, coder: str) -> bytes:
    """Compress `data`, not empty, with the strongest setting of one of CODERS."""
    if coder == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=22).compress(data)
    if coder == "brotli":
        import brotli

        return brotli.compress(data, quality=11)
    return lzma.compress(data, filters=[_lzma_filter(len(data))])


def decompress(data: bytes, coder: str, size: int) -> bytes:
    """The `size` bytes that `compress` was given. Raises ValueError when `data` holds anything else.

    Allocates at most `size` and the decoder's tables (brotli: also a window of up to 16 MiB), whatever `data` claims.
    """
    unpack = {"zstd": _unpack_zstd, "lzma": _unpack_lzma, "brotli": _unpack_brotli}[coder]
    try:
        content, ended = unpack(data, size)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # every library has its own
        raise ValueError(str(error)) from None
    if not ended or len(content) != size:
        raise ValueError(f"the {coder} stream does not end after {size} bytes")
    return content


def _unpack_zstd(data: bytes, size: int) -> tuple[bytes, bool]:
    import zstandard

    if zstandard.get_frame_parameters(data).content_size != size:  # the one-shot decompressor would allocate as much
        return b"", False
    return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False), True


def _unpack_lzma(data: bytes, size: int) -> tuple[bytes, bool]:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=max(size, SMALLEST_DICTIONARY) + LZMA_OVERHEAD)
    content = decompressor.decompress(data, size + 1)
    return content, decompressor.eof and not decompressor.unused_data


def _unpack_brotli(data: bytes, size: int) -> tuple[bytes, bool]:
    import brotli

    decompressor = brotli.Decompressor()
    content = decompressor.process(data, output_buffer_limit=size + 1)
    return content, decompressor.is_finished()


def _lzma_filter(size: int) -> dict:
    """Preset 9e with a dictionary no larger than the data: same bytes, and the decoder does not need 64 MiB."""
    dictionary = min(max(size, SMALLEST_DICTIONARY), 1 << 26)
    return {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
