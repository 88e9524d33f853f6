"""Lossless coding of quantised weights and fp16 vectors.

Matrices are coded by the compiled context mixing of fairway.codec.mixing, whose models adapt while coding. Three bytes in front
give the starting point: a binary tree over the integers whose nodes halve the mass of a Gaussian as wide as the matrix, and
the Gaussian probabilities of the decisions, so that small matrices do not pay for learning them. Two layouts are tried: a
light one for white matrices, as Muon leaves them, and a full one that pays on embeddings. The upper bits of an fp16 vector are
coded as a matrix of one row.
"""

import struct
from itertools import accumulate
from math import log2, prod
from operator import mul
from typing import NamedTuple

import numpy as np

from fairway.codec.mixing import AT, CENTRES, CODE, GUESSES, LOW, UNIT, WIDTH, WIDTHS, Layout, memory, walk
from fairway.quant.trellis import NEXT_STATE

LAYOUTS = (Layout(0, 2, 1023, 0.0005, 0.33), Layout(2, GUESSES - 1, 500, 0.006, 0.25))  # light, full
LEAST_GAIN = 0.01  # share of the bytes that the full layout must save, as it takes twice the time of the light one
WIDEST = 1024  # columns; wider matrices get no regression in the full layout, as its time is quadratic in them
# exp(−(t/32)²/2) · 2^24, plus a floor for tails heavier than Gaussian. The ratios of neighbours fall by exp(−1/1024) each.
_RATIOS = accumulate([0.9990239141819757] * 254, mul, initial=0.9995118379398894)
DENSITY = np.array([int(g * 2**24) + 256 for g in accumulate(_RATIOS, mul, initial=1.0)])
REGISTER_BYTES = 6  # of the arithmetic coder
FLOAT_LIMIT = 31  # largest upper part of an fp16 value; the bits below it are stored raw


class Plan(NamedTuple):
    """What the decoder must know first, one byte each."""

    limit: int  # largest |integer|
    layout: int  # index into LAYOUTS
    width: int  # index into WIDTH: standard deviation of the integers


def encode_matrix(integers: np.ndarray, states: int = 0) -> bytes:
    """The code of an int8 matrix (R, C) within ±127, R and C at least 1; `states` of its trellis, 0 for a plain grid."""
    coded = [encode_with(integers, states, plan) for plan in _plans(integers)]
    return coded[len(coded) > 1 and len(coded[1]) < (1 - LEAST_GAIN) * len(coded[0])]


def decode_matrix(data: bytes, shape: tuple[int, int], states: int = 0) -> np.ndarray:
    """The int8 matrix (R, C) that `encode_matrix` was given. Other bytes give some matrix: callers verify checksums."""
    limit, layout, width = data[:3].ljust(3, b"\0")
    integers = np.zeros(shape, np.int8)
    content = np.frombuffer(bytearray(data[3:]), np.uint8)
    _run(integers, states, Plan(limit & 127, layout % len(LAYOUTS), width & 127), content, encoding=False)
    return integers


def _plans(integers: np.ndarray) -> list[Plan]:
    limit = int(np.abs(integers.astype(np.int16)).max())
    width = round(4 * log2(max(np.square(integers, dtype=np.float64).mean(), 2.0**-12))) + UNIT
    return [Plan(limit, layout, width) for layout in range(len(LAYOUTS) if limit else 1)]


def encode_with(integers: np.ndarray, states: int, plan: Plan) -> bytes:
    """The code of an int8 matrix that starts from a given plan."""
    data = np.empty(integers.size + 8, np.uint8)
    end = _run(integers, states, plan, data, encoding=True)
    if end > data.size:  # more than 8 bits per weight: the starting point does not match the data
        data = np.empty(end, np.uint8)
        _run(integers, states, plan, data, encoding=True)
    return bytes(plan) + data[:end].tobytes().rstrip(b"\0")  # the decoder reads zeros after the end


def _run(integers_RC: np.ndarray, states: int, plan: Plan, data: np.ndarray, encoding: bool) -> int:
    """Encode into `data`, as far as it reaches, or decode into `integers_RC`. Returns the length of the whole code in bytes.

    Transposes matrices that are wider than high: a regression on few columns has many rows to learn from, and is faster.
    """
    if plan.limit == 0:
        return 0
    across = integers_RC.shape[0] < integers_RC.shape[1]
    matrix_RC = (integers_RC.T if across else integers_RC).copy()
    layout = LAYOUTS[plan.layout]
    spans_N3, child_N2 = _tree(plan)
    start = np.concatenate([_starts(plan, spans_N3, grid) for grid in range(2 if states else 1)], axis=2)
    regressing = plan.layout > 0 and matrix_RC.shape[1] <= WIDEST
    state = memory(np.column_stack([child_N2, spans_N3[:, 1]]), start, layout, matrix_RC.shape, regressing)
    if not encoding:
        state.coder[CODE] = int.from_bytes(data[:REGISTER_BYTES].tobytes().ljust(REGISTER_BYTES, b"\0"))
        state.coder[AT] = REGISTER_BYTES
    next_state = NEXT_STATE[states] if states else np.zeros((1, 2), np.uint8)
    walk(matrix_RC, data, encoding, across, layout, 0.5 / float(WIDTH[plan.width]), next_state, state)
    if not encoding:
        integers_RC[:] = matrix_RC.T if across else matrix_RC
    return _finish(state.coder, data) if encoding else len(data)


def _finish(coder: np.ndarray, data: np.ndarray) -> int:
    """End the code: one byte, followed by implied zeros, identifies a point in the last interval. Returns the length."""
    end = int(coder[AT])
    if coder[LOW] == 0:
        return end
    if end < len(data):
        data[end] = (int(coder[LOW]) >> 40) + 1
    return end + 1


def _tree(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (first rank, first rank of child 1, end) and their children; each node splits its mass into halves.

    Numbered level by level, so that the counters of the first four decisions share a cache line.
    """
    distance_L = np.abs(np.arange(-plan.limit, plan.limit + 1)) * (32 / WIDTH[plan.width])
    mass = np.concatenate([[0], np.cumsum(DENSITY[np.minimum(distance_L, 255).astype(np.int64)])])
    ranges, spans, children = [(0, 2 * plan.limit + 1)], [], []
    for first, end in ranges:  # grows on the way
        middle = first + 1 + int(np.argmin(np.abs(2 * mass[first + 1 : end] - mass[first] - mass[end])))
        spans.append((first, middle, end))
        children.append([])
        for part in ((first, middle), (middle, end)):
            leaf = part[1] - part[0] == 1
            children[-1].append(~part[0] if leaf else len(ranges))
            ranges += [] if leaf else [part]
    return np.array(spans, np.int64), np.array(children, np.int64)


def _starts(plan: Plan, spans_N3: np.ndarray, grid: int) -> np.ndarray:
    """P(child 1) · 2^22, (CENTRES, WIDTHS, N), of Gaussians with the centres and widths of the bins, on one trellis grid."""
    k = np.arange(-plan.limit, plan.limit + 1)
    halves_L = 2 * k - grid * np.sign(k)  # the value of k in half steps
    spacing_L = np.diff(halves_L, prepend=halves_L[0] - 2) + np.diff(halves_L, append=halves_L[-1] + 2)
    deviation = 2 * WIDTH[plan.width]
    centre_M11 = ((np.arange(CENTRES) - CENTRES // 2) * (deviation / 8))[:, None, None]
    scale_S1 = 32 / (deviation * WIDTH[UNIT - 16 : UNIT + 16 : 2])[:, None]
    distance_MSL = np.minimum(np.abs(halves_L - centre_M11) * scale_S1, 255)
    mass = np.cumsum(DENSITY[distance_MSL.astype(np.int64)] * spacing_L, axis=2)
    mass = np.concatenate([np.zeros((CENTRES, WIDTHS, 1), np.int64), mass], axis=2)
    first, middle, end = (mass[:, :, rank] for rank in spans_N3.T)
    return ((end - middle) * 2**22 // (end - first)).clip(2**12, 2**22 - 2**12)


def encode_floats(values: np.ndarray) -> bytes:
    """The code of an fp16 array of any shape with at least one element, bit for bit.

    Drops the low bits that are zero in all bit patterns (rounded scales have some). Maps the patterns to ranks in numerical
    order, in which the scales of a matrix lie close together, and splits them into a coded upper and a raw lower part where
    that takes the fewest bytes.
    """
    pattern = values.ravel().view(np.uint16)
    union = int(np.bitwise_or.reduce(pattern)) | 0x8000
    zeros = (union & -union).bit_length() - 1
    rank = np.where(pattern >> 15, ~pattern, pattern | 0x8000).astype(np.int32) >> zeros
    first = next(shift for shift in range(16) if (rank.max() >> shift) - (rank.min() >> shift) <= 2 * FLOAT_LIMIT)
    return min((_encode_ranks(rank, zeros, shift) for shift in range(first, first + 4)), key=len)


def _encode_ranks(rank_N: np.ndarray, zeros: int, shift: int) -> bytes:
    upper_N = rank_N >> shift
    centre = int(upper_N.max() + upper_N.min()) // 2
    lower_NS = (rank_N[:, None] >> np.arange(shift) & 1).astype(np.uint8)
    matrix = encode_matrix((upper_N - centre).astype(np.int8)[None])
    return struct.pack("<BH", zeros << 4 | shift, centre) + np.packbits(lower_NS).tobytes() + matrix


def decode_floats(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The fp16 array that `encode_floats` was given; `data` must be complete (the container verifies that)."""
    split, centre = struct.unpack_from("<BH", data)
    zeros, shift = divmod(split, 16)
    bits = prod(shape) * shift
    end = 3 + (bits + 7) // 8
    lower_NS = np.unpackbits(np.frombuffer(data[3:end], np.uint8), count=bits).reshape(prod(shape), shift)
    upper_N = decode_matrix(data[end:], (1, prod(shape)))[0].astype(np.int32) + centre
    rank = (upper_N << shift | lower_NS @ (1 << np.arange(shift))) << zeros
    pattern = np.where(rank >> 15, rank & 0x7FFF, ~rank) & (0xFFFF << zeros & 0xFFFF)  # ~ turned dropped zeros into ones
    return pattern.astype(np.uint16).view(np.float16).reshape(shape)
