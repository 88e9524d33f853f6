"""General-purpose compressors for the weights, as the published systems use them: kept to compare with.

zstd at level 22, LZMA at 9e (#1185, #885), brotli at 11 (#1394). Each decompressor is told the size beforehand and stops
when the stream would exceed it. A library is imported when it is chosen: `submission.pyz` needs none of them otherwise.
"""

import lzma

CODERS = ("zstd", "lzma", "brotli")
SMALLEST_DICTIONARY = 4096  # bytes; LZMA's own limit
LZMA_OVERHEAD = 1 << 20  # bytes that its decoder takes beside the dictionary; a tenth of it in fact


def compress(data: bytes, coder: str) -> bytes:
    """`data`, not empty, at the strongest setting of one of CODERS."""
    if coder == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=22).compress(data)
    if coder == "brotli":
        import brotli

        return brotli.compress(data, quality=11)
    return lzma.compress(data, filters=[_lzma_filter(len(data))])


def decompress(data: bytes, coder: str, size: int) -> bytes:
    """The `size` bytes that `compress` was given. Raises ValueError where `data` holds anything else.

    Never allocates more than `size` and the decoder's own tables (brotli: and a window of up to 16 MiB), whatever `data` says.
    """
    unpack = {"zstd": _unpack_zstd, "lzma": _unpack_lzma, "brotli": _unpack_brotli}[coder]
    content = unpack(data, size)
    if len(content) != size:
        raise ValueError(f"{coder} stream of {len(content)} bytes or more, expected {size}")
    return content


def _unpack_zstd(data: bytes, size: int) -> bytes:
    import zstandard

    try:
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != size:  # which the one-shot decompressor would believe and allocate
            raise ValueError(f"zstd frame of {frame.content_size} bytes, expected {size}")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from None


def _unpack_lzma(data: bytes, size: int) -> bytes:
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=max(size, SMALLEST_DICTIONARY) + LZMA_OVERHEAD)
    try:
        content = decompressor.decompress(data, size + 1)
    except lzma.LZMAError as error:
        raise ValueError(str(error)) from None
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError(f"LZMA stream does not end after {size} bytes")
    return content


def _unpack_brotli(data: bytes, size: int) -> bytes:
    import brotli

    decompressor = brotli.Decompressor()
    try:
        content = decompressor.process(data, output_buffer_limit=size + 1)
    except brotli.error as error:
        raise ValueError(str(error)) from None
    if not decompressor.is_finished():
        raise ValueError(f"brotli stream does not end after {size} bytes")
    return content


def _lzma_filter(size: int) -> dict:
    """Preset 9e with a dictionary no larger than the data: the same bytes, and a decoder that needs no 64 MiB."""
    dictionary = min(max(size, SMALLEST_DICTIONARY), 1 << 26)
    return {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": dictionary}
