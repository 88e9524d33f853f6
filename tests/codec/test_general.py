"""The general compressors: round trips, and no stream is decompressed beyond its declared size."""

import contextlib
import lzma
import subprocess
import sys
import tracemalloc

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.codec.general import CODERS, compress, decompress

BOMB = bytes(20_000_000)


def peak_of(function, *arguments) -> int:
    """Peak of allocated bytes while a function raises ValueError."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            function(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coder", CODERS)
@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=300), times=st.integers(1, 40))
def test_round_trip(coder, data, times):
    assert decompress(compress(data * times, coder), coder, len(data) * times) == data * times


@pytest.mark.parametrize("coder", CODERS)
def test_another_size_is_refused(coder):
    packed = compress(b"weights" * 1000, coder)
    for size in (0, 1, 6999, 7001, 1 << 40):
        with pytest.raises(ValueError):
            decompress(packed, coder, size)


@pytest.mark.parametrize("coder", CODERS)
@settings(max_examples=60, deadline=None)
@given(kept=st.integers(0, 60), more=st.binary(max_size=40))
def test_any_other_bytes_are_refused_or_give_the_declared_size(coder, kept, more):
    """Brotli has no checksum; the container adds one."""
    data = b"a text that is not random, not random, not random at all"
    with contextlib.suppress(ValueError):
        assert len(decompress(compress(data, coder)[:kept] + more, coder, len(data))) == len(data)


@pytest.mark.parametrize("coder", CODERS)
def test_what_is_cut_short_or_continued_is_refused(coder):
    packed = compress(b"a text", coder)
    for other in (*(packed[:length] for length in range(len(packed))), packed + b"\0", packed + packed):
        with pytest.raises(ValueError):
            decompress(other, coder, 6)


@pytest.mark.parametrize("coder", CODERS)
def test_a_stream_that_swells_is_refused_within_the_declared_size(coder):
    packed = compress(BOMB, coder)
    assert len(packed) < len(BOMB) / 1000
    assert peak_of(decompress, packed, coder, 100_000) < 2_000_000


def test_a_frame_without_its_size_is_refused():
    """zstd may leave the size out; the one-shot decompressor would then guess."""
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(BOMB)
    assert peak_of(decompress, packed, "zstd", len(BOMB)) < 100_000


def test_a_dictionary_larger_than_the_data_is_refused():
    """64 MiB, the preset's own, which LZMA's decoder would allocate for a stream of any length."""
    with pytest.raises(ValueError, match="Memory usage limit"):
        decompress(lzma.compress(b"weights", preset=9), "lzma", 7)


def test_zstd_and_brotli_are_imported_by_whoever_chooses_them():
    code = "import sys, fairway.codec.general; print({'zstandard', 'brotli'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
