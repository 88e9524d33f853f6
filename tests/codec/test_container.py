"""`model.fwy`: its bytes, round trips, and that no damage gets past the checksums."""

import json
import struct
import zlib
from hashlib import blake2b

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.codec.container import ContainerError, read, read_integers, record_sizes, write
from fairway.errors import InputError

CONFIG = {"width": 4, "rope_base": 1e4, "smear_gate": True}
INTEGERS = np.array([[1, -2, 3, 0], [0, 0, -3, 1], [2, 2, 1, -1]], np.int8)
SCALES = np.array([0.5, 0.25, 2.0], np.float16)
SMALL = {"gain": np.array(1.5, np.float16), "a.mix": np.array([[1.0, -0.25]], np.float16)}
DATA = write(CONFIG, {"block.weight": (INTEGERS, SCALES, 3)}, SMALL)


def digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size).digest()


def forged(header: bytes, body: bytes = b"") -> bytes:
    """A file with right checksums around any header."""
    stored = zlib.compress(header, 9)
    content = struct.pack("<8sHII", b"FAIRWAY\0", 1, len(stored), len(header)) + digest(stored, 16) + stored + body
    return content + digest(content, 16)


def test_fixed_fields_and_header():
    magic, version, stored_length, length = struct.unpack_from("<8sHII", DATA)
    stored = DATA[34 : 34 + stored_length]
    header = zlib.decompress(stored)
    assert (magic, version, length) == (b"FAIRWAY\0", 1, len(header))
    assert DATA[18:34] == digest(stored, 16)
    assert DATA[-16:] == digest(DATA[:-16], 16)
    content = json.loads(header)
    assert content["config"] == CONFIG
    assert [(entry["name"], entry["kind"], entry["shape"]) for entry in content["tensors"]] == [
        ("a.mix", "float", [1, 2]),
        ("block.weight", "matrix", [3, 4]),
        ("gain", "float", []),
    ]
    assert content["tensors"][1]["bits"] == 3
    assert header == json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    # The last record is "gain": a checksum of four bytes, shift 0, rank 0xBE00 of 1.5, one bin, and nothing to code.
    body = bytes([0, 0x00, 0xBE, 1, 0])
    assert DATA[-16 - 9 : -16] == digest(body, 4) + body


def test_read_gives_integers_times_scale():
    config, tensors = read(DATA)
    assert config == CONFIG
    assert list(tensors) == ["a.mix", "block.weight", "gain"]
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    expected = [[0.5, -1, 1.5, 0], [0, 0, -0.75, 0.25], [4, 4, 2, -2]]
    np.testing.assert_array_equal(tensors["block.weight"], expected)
    np.testing.assert_array_equal(tensors["a.mix"], [[1, -0.25]])
    assert tensors["gain"].shape == ()


def test_order_of_the_arguments_does_not_matter():
    backwards = dict(reversed(SMALL.items()))
    assert write(dict(reversed(CONFIG.items())), {"block.weight": (INTEGERS, SCALES, 3)}, backwards) == DATA


def test_record_sizes_and_frame_make_up_the_file():
    frame = 34 + struct.unpack_from("<I", DATA, 10)[0] + 16
    assert sum(record_sizes(DATA).values()) + frame == len(DATA)


names = st.text(min_size=1, max_size=8)
matrices = arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(-127, 127))
floats = arrays.arrays(np.float16, arrays.array_shapes(min_dims=0, max_dims=3, max_side=6))


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(names, matrices, max_size=3), st.dictionaries(names, floats, max_size=3))
def test_any_tensors_come_back(integers, small):
    small = {name: values for name, values in small.items() if name not in integers}
    quantised = {
        name: (matrix, np.linspace(1e-4, 1, len(matrix), dtype=np.float16), 2 + len(name) % 7)
        for name, matrix in integers.items()
    }
    config, matrices_back, small_back = read_integers(write(CONFIG, quantised, small))
    assert (config, matrices_back.keys(), small_back.keys()) == (CONFIG, quantised.keys(), small.keys())
    for name, (matrix, scales, bits) in matrices_back.items():
        np.testing.assert_array_equal(matrix, quantised[name][0])
        np.testing.assert_array_equal(scales, quantised[name][1])
        assert bits == quantised[name][2]
    for name, values in small_back.items():
        assert values.shape == small[name].shape
        assert values.tobytes() == small[name].tobytes()


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(mask):
    for at in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= mask
        with pytest.raises(ContainerError, match=r"model\.fwy"):
            read(bytes(damaged))


def test_every_truncation_and_extension_is_refused():
    for length in range(len(DATA)):
        with pytest.raises(ContainerError):
            read(DATA[:length])
    with pytest.raises(ContainerError):
        read(DATA + b"\0")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 40))
def test_random_bytes_are_refused(content, kept):
    with pytest.raises(ContainerError):
        read(DATA[:kept] + content)


def test_a_damaged_record_is_named():
    damaged = bytearray(DATA)
    damaged[-20] ^= 1
    with pytest.raises(InputError, match=r"here\.fwy: the record of 'gain' at offset"):
        read(bytes(damaged), "here.fwy")


def entry(**changes) -> bytes:
    tensor = {"kind": "float", "lengths": [5], "name": "a", "shape": [1]} | changes
    return json.dumps({"config": {}, "tensors": [tensor]}).encode()


RECORD = digest(bytes([0, 0, 0xBE, 1, 0]), 4) + bytes([0, 0, 0xBE, 1, 0])


def test_the_forger_can_write_a_good_file():
    assert read(forged(entry(), RECORD))[1]["a"] == 1.5


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"config":{},"tensors":[3]}',
        b'{"config":[],"tensors":[]}',
        entry(kind="pickle"),
        entry(shape=[-1]),
        entry(shape=[1.5]),
        entry(shape=[1 << 40]),
        entry(shape=None),
        entry(lengths=[-4]),
        entry(lengths=[5, 0]),
        entry(kind="matrix", shape=[1, 1]),
        entry(kind="matrix", shape=[1], lengths=[4, 1], bits=6),
        entry(name=7),
    ],
)
def test_forged_headers_are_refused_in_a_sentence(header):
    with pytest.raises(ContainerError):
        read(forged(header, RECORD))


def test_a_header_that_swells_is_refused_without_unpacking_it():
    stored = zlib.compress(b" " * 50_000_000 + b"{}", 9)
    content = struct.pack("<8sHII", b"FAIRWAY\0", 1, len(stored), 100) + digest(stored, 16) + stored
    with pytest.raises(ContainerError):
        read(content + digest(content, 16))
