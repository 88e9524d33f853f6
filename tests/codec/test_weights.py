"""Round trips of the weight coder, its rate against entropies and general compressors, and its bytes."""

import lzma

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.codec import mixing, weights
from fairway.codec.weights import Plan, decode_floats, decode_matrix, encode_floats, encode_matrix
from fairway.quant.trellis import NEXT_STATE

STATES = st.sampled_from([0, 4, 8])
LIGHT, FULL = 0, 1


def gaussian(seed: int, shape: tuple[int, int], deviation) -> np.ndarray:
    """Rounded normal integers; `deviation` broadcasts against `shape`."""
    return clipped(np.random.default_rng(seed).normal(0, 1, shape) * deviation)


def clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


def order0_bytes(integers: np.ndarray) -> float:
    _, counts = np.unique(integers, return_counts=True)
    return float((counts * np.log2(integers.size / counts)).sum() / 8)


def layout_of(data: bytes) -> int:
    return Plan(*data[:3]).layout


@st.composite
def matrices(draw) -> np.ndarray:
    """Any values, few distinct values, or a constant."""
    shape = draw(arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))
    elements = draw(st.sampled_from([st.integers(-127, 127), st.integers(-1, 1), st.sampled_from([-127, 0, 127])]))
    return draw(arrays.arrays(np.int8, shape, elements=elements))


@settings(max_examples=80)
@given(matrices(), STATES)
def test_any_matrix_comes_back(integers, states):
    restored = decode_matrix(encode_matrix(integers, states), integers.shape, states)
    assert restored.dtype == np.int8
    np.testing.assert_array_equal(restored, integers)


@pytest.mark.parametrize("layout", [LIGHT, FULL])
@pytest.mark.parametrize("states", [0, 8])
@pytest.mark.parametrize("shape", [(70, 33), (33, 70)])
def test_both_layouts_bring_a_larger_matrix_back(layout, states, shape):
    integers = gaussian(0, shape, 5)
    width = int(np.searchsorted(mixing.WIDTH, 5))
    data = weights.encode_with(integers, states, Plan(int(np.abs(integers).max()), layout, width))
    np.testing.assert_array_equal(decode_matrix(data, shape, states), integers)


def test_matrices_wider_than_any_regression_come_back(monkeypatch):
    monkeypatch.setattr(weights, "WIDEST", 16)
    integers = clipped(np.random.default_rng(0).normal(0, 8, 24) + gaussian(0, (60, 24), 3))
    data = encode_matrix(integers)
    assert layout_of(data) == FULL
    np.testing.assert_array_equal(decode_matrix(data, integers.shape), integers)


@settings(max_examples=60)
@given(st.binary(max_size=60), arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), STATES)
def test_any_bytes_decode_to_some_matrix(data, shape, states):
    assert decode_matrix(data, shape, states).shape == shape


def test_what_takes_more_bytes_than_weights_comes_back_too():
    """Uniform values with a starting point that finds all but zero unlikely: the first buffer is too small."""
    integers = np.random.default_rng(0).integers(-127, 128, (40, 40)).astype(np.int8)
    data = weights.encode_with(integers, 0, Plan(127, FULL, 0))
    assert len(data) > integers.size + 8
    np.testing.assert_array_equal(decode_matrix(data, integers.shape), integers)


@pytest.mark.parametrize(("deviation", "margin"), [(0.95, 0.002), (31 / 12.85, 0.001), (25.0, 0.002)])
def test_white_gaussian_costs_its_entropy_and_less_than_general_compressors(deviation, margin):
    integers = gaussian(0, (512, 512), deviation)
    data = encode_matrix(integers)
    assert layout_of(data) == LIGHT
    assert len(data) <= (1 + margin) * order0_bytes(integers)
    assert len(data) < len(zstandard.ZstdCompressor(level=19).compress(integers.tobytes()))
    assert len(data) < len(lzma.compress(integers.tobytes(), preset=6))


def test_small_white_matrices_do_not_pay_for_learning():
    small = [gaussian(seed, (64, 32), 2.4) for seed in range(8)]
    everything = order0_bytes(np.concatenate(small)) / len(small)
    assert np.mean([len(encode_matrix(integers)) for integers in small]) < 1.02 * everything


RANDOM = np.random.default_rng(1)
SCALES = np.exp(RANDOM.normal(0, 0.5, 256))
MEANS = RANDOM.normal(0, 8, 256)
NOISE = RANDOM.normal(0, 4, (512, 256))
FACTORS = RANDOM.normal(0, 3, (512, 4)) @ RANDOM.normal(0, 1, (4, 256))


@pytest.mark.parametrize(
    ("integers", "gain"),
    [
        (gaussian(4, (512, 256), 2.4 * SCALES), 0.04),
        (gaussian(4, (256, 512), 2.4 * SCALES[:, None]), 0.04),
        (gaussian(4, (512, 256), 2.4 * np.tile(SCALES, 2)[:, None]), 0.04),
        (clipped(MEANS + NOISE), 0.15),
        (clipped(np.tile(SCALES, 2)[:, None] * MEANS + NOISE), 0.15),
        (clipped(FACTORS + NOISE), 0.08),
    ],
    ids=["scales of columns", "scales of rows", "scales of long rows", "means", "means times rows' scales", "low rank"],
)
def test_the_model_learns_what_there_is_to_learn(integers, gain):
    data = encode_matrix(integers)
    assert len(data) < (1 - gain) * order0_bytes(integers)
    np.testing.assert_array_equal(decode_matrix(data, integers.shape), integers)


def test_low_rank_structure_is_coded_near_its_conditional_entropy():
    """For rows with covariance S the Gaussian bound is log det S per row; the regression has to learn S while coding."""
    integers = clipped(FACTORS + NOISE)
    covariance = np.cov(integers.T.astype(float))
    white = np.log2(np.sqrt(np.diag(covariance))).sum() - np.linalg.slogdet(np.cov(NOISE.T))[1] / 2 / np.log(2)
    saved = (order0_bytes(integers) - len(encode_matrix(integers))) * 8
    assert 0.5 * white * len(integers) < saved < white * len(integers)


def trellis_coded(values: np.ndarray, states: int) -> np.ndarray:
    """Integers whose reconstruction 2k − grid·sign(k) is nearest to each value on the current grid."""
    integers = np.zeros(values.shape, np.int8)
    state = np.zeros(values.shape[1], np.uint8)
    for r, row in enumerate(values):
        grid = state & 1
        k = np.rint((row + grid * np.sign(row)) / 2)
        integers[r] = np.where(grid & (np.abs(row) < 0.5), 0, k)
        state = NEXT_STATE[states][state, integers[r] & 1]
    return integers


@pytest.mark.parametrize("states", [4, 8])
@pytest.mark.parametrize("shape", [(256, 128), (128, 256)])
def test_the_grid_in_force_tells_of_the_integer(states, shape):
    integers = trellis_coded(np.random.default_rng(5).normal(0, 2, shape), states)
    assert len(encode_matrix(integers, states)) < 0.99 * len(encode_matrix(integers))


def test_the_density_is_gaussian_with_a_floor():
    np.testing.assert_allclose(weights.DENSITY - 256, 2**24 * np.exp(-((np.arange(256) / 32) ** 2) / 2), atol=1)


def test_zeros_cost_a_few_bytes():
    assert len(encode_matrix(np.zeros((1000, 1000), np.int8))) == 3
    one = np.zeros((300, 300), np.int8)
    one[100, 200] = 127
    assert len(encode_matrix(one)) < 150
    assert len(encode_floats(np.ones(1000, np.float16))) == 6


def test_bytes_are_fixed():
    """The format: these bytes change only with the container's version."""
    assert encode_matrix(np.array([[0, 0, 0, 1]], np.int8)).hex() == "0100283b"
    structured = clipped(np.outer(np.arange(-8, 9), np.arange(-5, 6)) / 3)
    data = encode_matrix(structured, 8)
    assert data.hex() == (
        "0d01430004c8cee7286d4ed246c553576f6ca5b09bba4d7b7684f094b5d23c4406112ddda386014f6a1a053559cbb953531f5fde0240089fcc30"
        "f27a097a53f34fca132f65ddbc5dfe48fce3d77bdf3e16ff2953ba9e1b59e793e46cef"
    )
    assert encode_floats(np.array([1.0, 1.0], np.float16)) == bytes([10 << 4, 0xBC00 >> 10, 0, 0, 0, 0])


def test_same_matrix_same_bytes_in_any_memory_layout_and_untouched():
    integers = gaussian(7, (96, 80), 2.4 * SCALES[:80])
    before = integers.copy()
    integers.flags.writeable = False
    assert encode_matrix(integers) == encode_matrix(integers) == encode_matrix(np.asfortranarray(integers))
    np.testing.assert_array_equal(integers, before)


@settings(max_examples=60)
@given(
    arrays.arrays(np.uint16, arrays.array_shapes(min_dims=0, max_dims=3, max_side=30), elements=st.integers(0, 65535)),
    st.integers(0, 15),
)
def test_any_fp16_pattern_comes_back(patterns, zeros):
    patterns = patterns & (0xFFFF << zeros & 0xFFFF)
    restored = decode_floats(encode_floats(patterns.astype(np.uint16).view(np.float16)), patterns.shape)
    assert restored.dtype == np.float16
    np.testing.assert_array_equal(restored.view(np.uint16), patterns)


def test_special_floats_come_back():
    values = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 6e-8, -6e-8, 65504, 1.0], np.float16)
    for part in (values, values[:6], values[5:6], np.float16([-0.0, 0.0]), np.float16([-1.5, 1.5])):
        np.testing.assert_array_equal(decode_floats(encode_floats(part), part.shape).view(np.uint16), part.view(np.uint16))


def test_scales_cost_far_less_than_16_bits_and_rounded_ones_less_again():
    scales = (0.01 * np.exp(np.random.default_rng(6).normal(0, 0.1, 1024))).astype(np.float16)
    rounded = (scales.view(np.uint16) & 0xFF80).view(np.float16)  # 3 bits of mantissa
    assert len(encode_floats(scales)) * 8 / 1024 < 9.5
    values, counts = np.unique(rounded, return_counts=True)
    entropy = (counts * np.log2(1024 / counts)).sum() / 8
    assert len(encode_floats(rounded)) < entropy + 6 + len(values)
