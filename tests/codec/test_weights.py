"""Round trips of the weight coder, its rate against entropies and general compressors, and its bytes."""

import lzma

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.codec.weights import Plan, decode_floats, decode_matrix, encode_floats, encode_matrix


def gaussian(seed: int, shape: tuple[int, int], deviation) -> np.ndarray:
    """Rounded normal integers; `deviation` broadcasts against `shape`."""
    noise = np.random.default_rng(seed).normal(0, 1, shape) * deviation
    return np.clip(np.rint(noise), -127, 127).astype(np.int8)


def order0_bytes(integers: np.ndarray) -> float:
    _, counts = np.unique(integers, return_counts=True)
    return float((counts * np.log2(integers.size / counts)).sum() / 8)


def plan_of(data: bytes) -> Plan:
    return Plan.unpack(data)[0]


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.int8, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.integers(-127, 127)))
def test_any_matrix_comes_back(integers):
    restored = decode_matrix(encode_matrix(integers), integers.shape)
    assert restored.dtype == np.int8
    np.testing.assert_array_equal(restored, integers)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint16, arrays.array_shapes(min_dims=0, max_dims=3, max_side=30), elements=st.integers(0, 65535)))
def test_any_fp16_pattern_comes_back(patterns):
    restored = decode_floats(encode_floats(patterns.view(np.float16)), patterns.shape)
    assert restored.dtype == np.float16
    np.testing.assert_array_equal(restored.view(np.uint16), patterns)


def test_gaussian_int6_costs_its_entropy_and_less_than_general_compressors():
    integers = gaussian(0, (768, 256), 31 / 12.85)
    size = len(encode_matrix(integers))
    assert size <= 1.005 * order0_bytes(integers)
    assert size < len(zstandard.ZstdCompressor(level=22).compress(integers.tobytes()))
    assert size < len(lzma.compress(integers.tobytes(), preset=9 | lzma.PRESET_EXTREME))


SCALES = np.exp(np.random.default_rng(1).normal(0, 0.5, 256))
MEANS = np.random.default_rng(2).normal(0, 8, 256)
NOISE = np.random.default_rng(3).normal(0, 4, (512, 256))


@pytest.mark.parametrize(
    ("integers", "transposed", "signed", "gain"),
    [
        (gaussian(4, (512, 256), 2.4 * SCALES), False, False, 0.04),
        (gaussian(4, (256, 512), 2.4 * SCALES[:, None]), True, False, 0.04),
        (np.clip(np.rint(MEANS + NOISE), -127, 127).astype(np.int8), False, True, 0.15),
    ],
    ids=["scales of columns", "scales of rows", "means of columns"],
)
def test_contexts_pay_where_there_is_something_to_learn(integers, transposed, signed, gain):
    data = encode_matrix(integers)
    plan = plan_of(data)
    assert (plan.transposed, plan.kind >= 3) == (transposed, signed)
    assert len(data) < (1 - gain) * order0_bytes(integers)
    np.testing.assert_array_equal(decode_matrix(data, integers.shape), integers)


def test_white_noise_gets_no_contexts():
    assert plan_of(encode_matrix(gaussian(5, (768, 256), 2.4))).kind == 0


def test_zeros_cost_a_few_bytes():
    assert len(encode_matrix(np.zeros((1000, 1000), np.int8))) <= 8
    assert len(encode_floats(np.ones(1000, np.float16))) <= 5 + 4


def test_bytes_are_fixed():
    # limit 1, no transposition, no context; no threshold; mean 0; decay 65536·exp(−0.5/0.25) = 8869; then the coder
    data = encode_matrix(np.array([[0, 0, 0, 1]], np.int8))
    assert data[:5] == bytes([1, 0, 0]) + (8869).to_bytes(2, "little")
    assert encode_floats(np.array([1.0, 1.0], np.float16)) == bytes([0]) + (0xBC00).to_bytes(2, "little") + bytes([1, 0])


def test_scales_cost_far_less_than_16_bits():
    scales = (0.01 * np.exp(np.random.default_rng(6).normal(0, 0.1, 1024))).astype(np.float16)
    assert len(encode_floats(scales)) * 8 / 1024 < 9.5


def test_same_matrix_same_bytes_in_any_memory_layout():
    integers = gaussian(7, (96, 80), 2.4 * SCALES[:80])
    assert encode_matrix(integers) == encode_matrix(np.asfortranarray(integers))
