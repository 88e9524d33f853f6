"""`model.fwy`: its bytes, round trips, and checksums that detect all damage."""

import contextlib
import dataclasses
import json
import struct
import tracemalloc
import zlib
from hashlib import blake2b

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.codec import general
from fairway.codec.container import ContainerError, read, read_integers, record_sizes, write
from fairway.codec.weights import encode_floats, encode_matrix
from fairway.errors import InputError
from fairway.quant.matrix import QuantisedMatrix

CODERS = ["range", *general.CODERS]
CONFIG = {"width": 4, "rope_base": 1e4, "smear_gate": True}
INTEGERS = np.array([[1, -2, 3, 0], [0, 0, -3, 1], [2, 2, 1, -1]], np.int8)
SCALES = np.array([0.5, 0.25, 2.0], np.float16)
PLAIN = QuantisedMatrix(INTEGERS, SCALES, 3)
CORRECTION = (
    QuantisedMatrix(np.array([[1, 0, -1]], np.int8), np.array([0.5], np.float16), 2),
    QuantisedMatrix(np.array([[3, -1, 2, 0]], np.int8), np.array([0.25], np.float16), 4),
)
FULL = dataclasses.replace(PLAIN, states=8, rotation=2, correction=CORRECTION)
FP16 = {"gain": np.array(1.5, np.float16), "a.mix": np.array([[1.0, -0.25]], np.float16)}
DATA = write(CONFIG, {"block.up.weight": PLAIN, "block.down.weight": FULL}, FP16)
FIXED = struct.Struct("<8sHII4s")


def digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size).digest()


def deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(content) + deflater.flush()


def forged(header: dict | bytes, *records: bytes, length: int | None = None) -> bytes:
    """A file with valid checksums around any header and any records."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    stored = deflated(header)
    length = len(header) if length is None else length
    content = FIXED.pack(b"FAIRWAY\0", 2, len(stored), length, digest(stored, 4)) + stored
    content += b"".join(digest(record, 4) + record for record in records)
    return content + digest(content, 16)


def header_of(data: bytes) -> bytes:
    return zlib.decompress(data[FIXED.size : FIXED.size + FIXED.unpack_from(data)[2]], -15)


def assert_same(found: QuantisedMatrix, given: QuantisedMatrix) -> None:
    for name in ("integers", "scales"):
        ours, theirs = getattr(found, name), getattr(given, name)
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    assert (found.integer_bits, found.states, found.rotation) == (given.integer_bits, given.states, given.rotation)
    assert (found.correction is None) == (given.correction is None)
    for ours, theirs in zip(found.correction or (), given.correction or (), strict=True):
        assert_same(ours, theirs)


def test_layout():
    magic, version, stored_length, length, header_digest = FIXED.unpack_from(DATA)
    stored, header = DATA[FIXED.size : FIXED.size + stored_length], header_of(DATA)
    assert (magic, version, length, header_digest) == (b"FAIRWAY\0", 2, len(header), digest(stored, 4))
    assert DATA[-16:] == digest(DATA[:-16], 16)
    parts = [encode_floats(FP16["a.mix"])]
    for matrix in (FULL, *CORRECTION, PLAIN):
        integers = encode_matrix(matrix.integers, 8) if matrix is FULL else encode_matrix(matrix.integers)
        parts += [integers, encode_floats(matrix.scales)]
    parts.append(encode_floats(FP16["gain"]))
    lengths = ",".join(str(len(part)) for part in parts)
    assert header.decode() == (
        '{"config":{"rope_base":10000.0,"smear_gate":true,"width":4},"lengths":[' + lengths + '],"tensors":'
        '{"a":{"mix":[1,2]},"block":{"down":{"weight":[3,4,{"bits":3,"repair":[1,2,4],"rotation":2,"states":8}]},'
        '"up":{"weight":[3,4,{"bits":3}]}},"gain":[]}}'
    )
    records = [parts[0], b"".join(parts[1:7]), b"".join(parts[7:9]), parts[9]]
    assert DATA[FIXED.size + stored_length : -16] == b"".join(digest(record, 4) + record for record in records)


@pytest.mark.parametrize("coder", general.CODERS)
def test_layout_of_the_general_coders(coder):
    """One record: int8 as it is, fp16 as low bytes and then high ones, in the order of the names."""
    data = write(CONFIG, {"a": PLAIN}, {"b": np.array([1.5, -1.0005], np.float16)}, coder)
    body = INTEGERS.tobytes() + bytes([0, 0, 0, 0x38, 0x34, 0x40]) + bytes([0x00, 0x01, 0x3E, 0xBC])
    content = json.loads(header_of(data))
    assert content["coder"] == coder
    (length,) = content["lengths"]
    assert general.decompress(data[-16 - length : -16], coder, len(body)) == body
    assert data[-16 - length - 4 : -16 - length] == digest(data[-16 - length : -16], 4)


@pytest.mark.parametrize("coder", CODERS)
def test_read_gives_the_weights(coder):
    data = write(CONFIG, {"block.up.weight": PLAIN, "block.down.weight": FULL}, FP16, coder)
    config, tensors = read(data)
    assert config == CONFIG
    assert list(tensors) == ["a.mix", "block.down.weight", "block.up.weight", "gain"]
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    expected = [[0.5, -1, 1.5, 0], [0, 0, -0.75, 0.25], [4, 4, 2, -2]]
    np.testing.assert_array_equal(tensors["block.up.weight"], expected)
    np.testing.assert_array_equal(tensors["block.down.weight"], FULL.weights())
    np.testing.assert_array_equal(tensors["a.mix"], [[1, -0.25]])
    assert tensors["gain"].shape == ()


def test_order_of_the_arguments_does_not_matter():
    backwards = dict(reversed(FP16.items()))
    matrices = {"block.down.weight": FULL, "block.up.weight": PLAIN}
    assert write(dict(reversed(CONFIG.items())), matrices, backwards) == DATA


@pytest.mark.parametrize("coder", CODERS)
def test_record_sizes_and_frame_make_up_the_file(coder):
    data = write(CONFIG, {"block.up.weight": PLAIN, "block.down.weight": FULL}, FP16, coder)
    sizes = record_sizes(data)
    assert list(sizes) == ["a.mix", "block.down.weight", "block.up.weight", "gain"]
    assert sum(sizes.values()) + FIXED.size + FIXED.unpack_from(data)[2] + 16 == len(data)


def test_a_general_record_is_shared_by_raw_bytes():
    sizes = record_sizes(write({}, {"w": QuantisedMatrix(np.ones((4, 96), np.int8), SCALES[[0, 0, 0, 0]], 2)}, FP16, "zstd"))
    assert sizes["w"] == pytest.approx(sum(sizes.values()) * (384 + 8) / (384 + 8 + 4 + 2), abs=1)


names = st.text(st.characters(blacklist_characters=".", codec="utf-8"), min_size=1, max_size=6)
dotted = st.lists(names, min_size=1, max_size=3).map(lambda parts: ".".join([*parts, "leaf"]))
floats = arrays.arrays(np.float16, arrays.array_shapes(min_dims=0, max_dims=3, max_side=6))


@st.composite
def matrices(draw) -> QuantisedMatrix:
    def plain(rows: int, columns: int) -> QuantisedMatrix:
        bits = draw(st.integers(2, 8))
        limit = 2 ** (bits - 1) - 1
        integers = draw(arrays.arrays(np.int8, (rows, columns), elements=st.integers(-limit, limit)))
        return QuantisedMatrix(integers, draw(arrays.arrays(np.float16, (rows,))), bits)

    R, C = draw(st.integers(1, 8)), draw(st.sampled_from([1, 3, 4, 8]))
    rank = draw(st.integers(0, 2))
    correction = (plain(rank, R), plain(rank, C)) if rank else None
    rotation = draw(st.sampled_from([block for block in (0, 1, 2, 4, 8) if not block or C % block == 0]))
    return dataclasses.replace(plain(R, C), states=draw(st.sampled_from([0, 4, 8])), rotation=rotation, correction=correction)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(dotted, matrices(), max_size=3), st.dictionaries(dotted, floats, max_size=3), st.sampled_from(CODERS))
def test_any_tensors_come_back(quantised, fp16, coder):
    fp16 = {name: values for name, values in fp16.items() if name not in quantised}
    config, quantised_back, fp16_back = read_integers(write(CONFIG, quantised, fp16, coder))
    assert (config, quantised_back.keys(), fp16_back.keys()) == (CONFIG, quantised.keys(), fp16.keys())
    for name, matrix in quantised_back.items():
        assert_same(matrix, quantised[name])
    for name, values in fp16_back.items():
        assert (values.shape, values.tobytes()) == (fp16[name].shape, fp16[name].tobytes())


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_refused(mask):
    for at in range(len(DATA)):
        damaged = bytearray(DATA)
        damaged[at] ^= mask
        with pytest.raises(ContainerError, match=r"model\.fwy"):
            read(bytes(damaged))


@pytest.mark.parametrize("coder", CODERS)
def test_every_truncation_and_extension_is_refused(coder):
    data = write(CONFIG, {"block.up.weight": PLAIN}, FP16, coder)
    for length in range(len(data)):
        with pytest.raises(ContainerError):
            read(data[:length])
    with pytest.raises(ContainerError):
        read(data + b"\0")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(DATA)), st.binary(max_size=60), st.integers(0, 60))
def test_replaced_inserted_and_random_bytes_are_refused(at, content, skipped):
    changed = DATA[:at] + content + DATA[at + skipped :]
    if changed != DATA:
        with pytest.raises(ContainerError):
            read(changed)


def test_a_damaged_record_is_named():
    damaged = bytearray(DATA)
    damaged[-18] ^= 1
    with pytest.raises(InputError, match=r"here\.fwy: the record of 'gain' at offset"):
        read(bytes(damaged), "here.fwy")


def test_another_version_is_refused():
    with pytest.raises(ContainerError, match="version 1 at offset 8, expected 2"):
        read(DATA[:8] + b"\1\0" + DATA[10:])


RECORD = encode_floats(np.array([1.5], np.float16))


def header(*leaf, **changes) -> dict:
    return {"config": {}, "lengths": [len(RECORD)], "tensors": {"a": list(leaf or [1])}} | changes


def test_the_forger_can_write_a_good_file():
    assert read(forged(header(), RECORD))[1]["a"] == 1.5


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"null",
        b"\xff",
        b"9" * 5000,
        b"[" * 100_000,
        b'{"config":{},"lengths":[],"tensors":' + b'{"a":' * 50_000 + b"[1]" + b"}" * 50_000 + b"}",
        b'{"config":{},"lengths":[],"tensors":' + b'{"a":' * 900 + b"3" + b"}" * 900 + b"}",
        header(config=[]),
        header(coder="pickle"),
        header(coder=["zstd"]),
        header(coder="zstd", lengths=[1, 4]),
        header(tensors=[3]),
        header(tensors={"a": 3}),
        header(tensors={"a": "pickle"}),
        header(tensors={"a": [1], "b": [1]}),
        header(lengths=5),
        header(lengths="5"),
        header(lengths=[-4]),
        header(lengths=[len(RECORD), 0]),
        header(lengths=[float(len(RECORD))]),
        header(lengths=[1 << 62]),
        header(-1),
        header(0),
        header(1.5),
        header(True),
        header(None),
        header(1 << 40),
        header(*[2] * 40),
        *(
            header(*leaf, lengths=[1, len(RECORD) - 1])
            for leaf in (
                (1, {"bits": 6}),
                (1, 1, 1, {"bits": 6}),
                (1 << 40, 1, {"bits": 6}),
                (1, 1, {"bits": 1}),
                (1, 1, {"bits": 9}),
                (1, 1, {"bits": "6"}),
                (1, 1, {"states": 4}),
                (1, 1, {"bits": 6, "states": 5}),
                (1, 1, {"bits": 6, "states": 4.0}),
                (1, 1, {"bits": 6, "rotation": 2}),
                (1, 6, {"bits": 6, "rotation": 3}),
                (1, 6, {"bits": 6, "rotation": -2}),
                (1, 1, {"bits": 6, "more": 1}),
            )
        ),
        *(
            header(1, 1, {"bits": 6, "repair": correction}, lengths=[1] * 6)
            for correction in (3, [1, 2], [0, 2, 2], [-1, 2, 2], [1, 2, 9], [1.0, 2, 2], [1 << 40, 2, 2], [1, 2, 2, 2], None)
        ),
    ],
)
def test_forged_headers_are_refused_in_a_sentence(content):
    tracemalloc.start()
    try:
        with pytest.raises(ContainerError):
            read(forged(content, RECORD))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_header_that_swells_is_refused_without_unpacking_it():
    data = forged(b" " * 50_000_000 + b"{}", length=100)
    tracemalloc.start()
    try:
        with pytest.raises(ContainerError):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(CODERS),
    st.lists(st.binary(min_size=1, max_size=40), min_size=2, max_size=2),
    st.sampled_from([{}, {"states": 4}, {"states": 8, "rotation": 4}]),
    st.integers(1, 8),
    st.sampled_from([4, 8, 1000]),
)
def test_forged_records_give_some_matrix_or_one_error(coder, parts, form, rows, columns):
    """They also take no more memory than the declared tensors and the tables of the coder."""
    lengths = [len(part) for part in parts] if coder == "range" else [sum(map(len, parts))]
    content = header(rows, columns, {"bits": 6} | form, lengths=lengths) | ({} if coder == "range" else {"coder": coder})
    data = forged(content, b"".join(parts))
    tracemalloc.start()
    try:
        with contextlib.suppress(ContainerError):
            assert read_integers(data)[1]["a"].integers.shape == (rows, columns)
        assert tracemalloc.get_traced_memory()[1] < 40_000_000  # of which the weight coder's tables are at most half
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coder", general.CODERS)
def test_a_record_that_swells_is_refused_within_the_declared_size(coder):
    bomb = general.compress(bytes(20_000_000), coder)
    data = forged(header(1000, coder=coder, lengths=[len(bomb)]), bomb)
    tracemalloc.start()
    try:
        with pytest.raises(ContainerError, match="cannot be decoded"):
            read(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
