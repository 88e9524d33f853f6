"""Lossless coding of quantised weights and fp16 vectors with constriction's range coder and adaptive models.

No histogram is stored: a model starts as a discretised Gaussian and counts what has been coded, on both sides alike.
A matrix may have eight contexts, bins of a running mean of q or |q| down each column (or along each row), which
embeddings pay for and Muon's near-white matrices do not; the encoder decides from a sample. Everything that the decoder
computes is integers or IEEE sums and products in a fixed order, never exp or log, so that all machines decode alike.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, lgamma, log

import constriction
import numpy as np

Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform
RangeEncoder = constriction.stream.queue.RangeEncoder
RangeDecoder = constriction.stream.queue.RangeDecoder

# What a running mean follows, and how fast: (signed q or |q|, weight 2^-shift of the newest row). 0 = no context.
KINDS = (None, (False, 4), (False, 1), (True, 4), (True, 1))
CONTEXTS = 8
PRIOR_MASS = 48.0  # the Gaussian start counts as so many symbols
PRIOR_FLOOR = 0.05  # and every integer as so many on top, for tails heavier than Gaussian
BLOCK = 1024  # symbols between two updates where there is no context
SAMPLE_ROWS = 64  # rows of each of the four stretches from which the contexts are chosen
LEAST_GAIN = 0.002  # share of the bits below which contexts are not worth their time
FLOAT_PRIOR = 0.5  # Krichevsky–Trofimov
FLOAT_BINS = 4096  # at most; more than a vector's length never pays


@dataclass(frozen=True)
class Plan:
    """What the decoder must know first. Arrays have one entry a context, `thresholds` one between two contexts."""

    limit: int  # largest |q|
    transposed: bool
    kind: int  # index into KINDS
    thresholds: np.ndarray  # int16, on the running mean × 256
    means: np.ndarray  # int8, of the Gaussian start
    decays: np.ndarray  # uint16, exp(−1/(2σ²)) × 65536

    def pack(self) -> bytes:
        head = struct.pack("<BB", self.limit, self.transposed << 7 | self.kind)
        return head + b"".join(part.tobytes() for part in (self.thresholds, self.means, self.decays))

    @classmethod
    def unpack(cls, data: bytes) -> tuple["Plan", int]:
        """The plan and the number of bytes it took."""
        limit, layout = struct.unpack_from("<BB", data)
        count = CONTEXTS if layout & 127 else 1
        parts, at = [], 2
        for dtype, length in (("<i2", count - 1), ("i1", count), ("<u2", count)):
            parts.append(np.frombuffer(data, dtype, length, at))
            at += parts[-1].nbytes
        return cls(limit, bool(layout >> 7), layout & 127, *parts), at


def encode_matrix(integers: np.ndarray) -> bytes:
    """Code an int8 matrix (R, C) with values in ±127, R and C at least 1."""
    plan = _choose(integers)
    if plan.limit == 0:
        return plan.pack()
    encoder = RangeEncoder()

    def code(symbols: np.ndarray, model: Categorical) -> np.ndarray:
        encoder.encode(symbols, model)
        return symbols

    _walk((integers.T if plan.transposed else integers).astype(np.int32) + plan.limit, plan, code)
    return plan.pack() + _to_bytes(encoder)


def decode_matrix(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    """The int8 matrix (R, C) that `encode_matrix` was given; `data` must be whole (the container checks that)."""
    plan, at = Plan.unpack(data)
    if plan.limit == 0:
        return np.zeros(shape, np.int8)
    decoder = _from_bytes(data[at:])
    symbols = np.zeros(shape[::-1] if plan.transposed else shape, np.int32)
    _walk(symbols, plan, lambda symbols, model: decoder.decode(model, len(symbols)))
    integers = (symbols - plan.limit).astype(np.int8)
    return np.ascontiguousarray(integers.T if plan.transposed else integers)


def _walk(symbols_RC: np.ndarray, plan: Plan, code: Callable[[np.ndarray, Categorical], np.ndarray]) -> None:
    """Pass every symbol through `code` once, with its model. The decoder's `symbols_RC` fill up on the way.

    One function serves both directions, so the two cannot drift apart.
    """
    R, C = symbols_RC.shape
    levels = 2 * plan.limit + 1
    counts_KL = np.stack([_prior(plan.limit, *start) for start in zip(plan.means, plan.decays, strict=True)])
    if plan.kind == 0:
        flat = symbols_RC.reshape(-1)
        for start in range(0, R * C, BLOCK):
            flat[start : start + BLOCK] = code(flat[start : start + BLOCK], Categorical(counts_KL[0], perfect=False))
            counts_KL[0] += np.bincount(flat[start : start + BLOCK], minlength=levels)
        symbols_RC[:] = flat.reshape(R, C)
        return
    signed, shift = KINDS[plan.kind]
    running_C = _running_start(plan.thresholds, C)
    for row_C in symbols_RC:
        context_C = np.searchsorted(plan.thresholds, running_C, side="right")
        order_C = np.argsort(context_C, kind="stable")
        stops = np.cumsum(np.bincount(context_C, minlength=CONTEXTS)).tolist()
        start = 0
        for context, stop in enumerate(stops):
            if stop > start:
                columns = order_C[start:stop]
                row_C[columns] = code(row_C[columns], Categorical(counts_KL[context], perfect=False))
                start = stop
        counts_KL += np.bincount(context_C * levels + row_C, minlength=CONTEXTS * levels).reshape(CONTEXTS, levels)
        _follow(running_C, row_C - plan.limit, signed, shift)


def _running_start(thresholds: np.ndarray, columns: int) -> np.ndarray:
    return np.full(columns, thresholds[len(thresholds) // 2], np.int32)


def _follow(running_C: np.ndarray, row_C: np.ndarray, signed: bool, shift: int) -> None:
    """Move the running mean (× 256) towards the newest row, in integers, in place."""
    running_C += ((row_C if signed else np.abs(row_C)) * 256 - running_C) >> shift


def _prior(limit: int, mean: int, decay: int) -> np.ndarray:
    """Start counts (2·limit + 1,) ∝ g^(d²), g = decay / 65536, d the distance from `mean`: a Gaussian without exp."""
    g = float(decay) / 65536
    shape, weight, ratio = [], 1.0, g
    for _ in range(2 * limit + 1):
        shape.append(weight)
        weight = weight * ratio if weight > 1e-12 else 0.0  # denormal numbers are not the same on all machines
        ratio = ratio * g * g if ratio > 1e-12 else 0.0
    table = [shape[min(abs(q - int(mean)), 2 * limit)] for q in range(-limit, limit + 1)]
    unit = PRIOR_MASS / sum(table)
    return np.array([PRIOR_FLOOR + unit * weight for weight in table])


def _choose(integers: np.ndarray) -> Plan:
    """The contexts that a sample says are cheapest, their learning included."""
    limit = int(np.abs(integers.astype(np.int16)).max())
    empty = np.zeros(0, "<i2")
    plain_cost, starts = _cost(np.zeros(integers.shape, np.int64), integers, 1, integers.size)
    header_bits = 8 * 5 * (CONTEXTS - 1)
    best_gain, best = header_bits + LEAST_GAIN * plain_cost, Plan(limit, False, 0, empty, *starts)
    for transposed in (False, True):
        matrix = integers.T if transposed else integers
        if limit == 0 or len(matrix) < 4:
            continue
        sample = _sample(matrix)
        sample_cost, _ = _cost(np.zeros(sample.shape, np.int64), sample, 1, matrix.size)
        for kind in range(1, len(KINDS)):
            running = _running_means(sample, *KINDS[kind])
            cuts = np.quantile(running, np.arange(1, CONTEXTS) / CONTEXTS, method="lower")
            thresholds = cuts.astype("<i2")
            cost, starts = _cost(np.searchsorted(thresholds, running, side="right"), sample, CONTEXTS, matrix.size)
            if sample_cost - cost > best_gain:
                best_gain = sample_cost - cost
                best = Plan(limit, transposed, kind, thresholds, *starts)
    return best


def _sample(matrix_RC: np.ndarray) -> np.ndarray:
    """Four stretches of rows, evenly spread, end to end; all rows where there are few."""
    R = len(matrix_RC)
    if R <= 4 * SAMPLE_ROWS:
        return matrix_RC.astype(np.int32)
    starts = [part * (R - SAMPLE_ROWS) // 3 for part in range(4)]
    return np.concatenate([matrix_RC[start : start + SAMPLE_ROWS] for start in starts]).astype(np.int32)


def _running_means(sample_RC: np.ndarray, signed: bool, shift: int) -> np.ndarray:
    """The running mean (× 256) that each entry would see, (R, C)."""
    start = 0 if signed else int(np.abs(sample_RC).mean() * 256)
    running_C = np.full(sample_RC.shape[1], start, np.int32)
    means_RC = np.empty(sample_RC.shape, np.int32)
    for row, row_C in enumerate(sample_RC):
        means_RC[row] = running_C
        _follow(running_C, row_C, signed, shift)
    return means_RC


def _cost(context: np.ndarray, sample: np.ndarray, contexts: int, size: int) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """Bits that `size` weights like the sample would take, and the Gaussian starts (means, decays) of the contexts.

    Conditional entropy, and half of log2(size) bits for each count that has to be learnt.
    """
    joint_KL = np.bincount((context * 256 + sample + 128).ravel(), minlength=256 * contexts).reshape(contexts, 256)
    total_K = joint_KL.sum(axis=1)
    share_KL = joint_KL / np.maximum(total_K, 1)[:, None]
    entropy_K = -(share_KL * np.log2(np.where(share_KL > 0, share_KL, 1))).sum(axis=1)
    bits = (entropy_K * total_K).sum() / sample.size * size + np.count_nonzero(joint_KL) / 2 * np.log2(size)
    q_L = np.arange(-128, 128)
    mean_K = np.rint(share_KL @ q_L)
    variance_K = (share_KL * (q_L - mean_K[:, None]) ** 2).sum(axis=1)
    decays = [min(65535, round(65536 * exp(-0.5 / max(variance, 0.05)))) for variance in variance_K.tolist()]
    return float(bits), (mean_K.astype(np.int8), np.array(decays, "<u2"))


def encode_floats(values: np.ndarray) -> bytes:
    """Code an fp16 array of any shape, at least one element, bit for bit: the upper bits of their rank, then the rest raw.

    The rank is the bit pattern put in numerical order, so that the scales of a matrix lie close together; the encoder
    splits it where adaptive counts of the upper part pay best.
    """
    pattern = values.ravel().view(np.uint16)
    rank = np.where(pattern >> 15, ~pattern, pattern | 0x8000).astype(np.int32)
    shift = min(range(17), key=lambda shift: (_float_cost(rank >> shift, shift), shift))
    upper = rank >> shift
    first, bins = int(upper.min()), int(upper.max() - upper.min() + 1)
    encoder = RangeEncoder()

    def code(symbols: np.ndarray, model: Categorical | Uniform) -> np.ndarray:
        encoder.encode(symbols, model)
        return symbols

    _walk_floats(upper - first, rank & ((1 << shift) - 1), bins, shift, code)
    return struct.pack("<BHH", shift, first, bins) + _to_bytes(encoder)


def decode_floats(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The fp16 array that `encode_floats` was given; `data` must be whole (the container checks that)."""
    shift, first, bins = struct.unpack_from("<BHH", data)
    decoder = _from_bytes(data[5:])
    upper, lower = np.zeros(shape, np.int32).ravel(), np.zeros(shape, np.int32).ravel()
    _walk_floats(upper, lower, bins, shift, lambda symbols, model: decoder.decode(model, len(symbols)))
    rank = (((upper + first) << shift) | lower).astype(np.uint16)
    return np.where(rank >> 15, rank & 0x7FFF, ~rank).astype(np.uint16).view(np.float16).reshape(shape)


def _walk_floats(upper: np.ndarray, lower: np.ndarray, bins: int, shift: int, code: Callable) -> None:
    """Pass both parts through `code`, as `_walk` does; the counts are renewed after 1, 2, 3, 5, 8, 13, … values."""
    counts = np.full(bins, FLOAT_PRIOR)
    start = 0
    while bins > 1 and start < len(upper):
        stop = start + 1 + start // 2
        upper[start:stop] = code(upper[start:stop], Categorical(counts, perfect=False))
        counts += np.bincount(upper[start:stop], minlength=bins)
        start = stop
    if shift:
        lower[:] = code(lower, Uniform(1 << shift))


def _float_cost(upper: np.ndarray, shift: int) -> float:
    """Bits of the Krichevsky–Trofimov code of the upper parts, and of the raw lower parts."""
    counts = np.bincount(upper - upper.min())
    if len(counts) > FLOAT_BINS:
        return float("inf")
    prior = FLOAT_PRIOR * len(counts)
    nats = lgamma(prior + len(upper)) - lgamma(prior)
    nats -= sum(lgamma(FLOAT_PRIOR + count) - lgamma(FLOAT_PRIOR) for count in counts[counts > 0].tolist())
    return nats / log(2) + shift * len(upper)


def _to_bytes(encoder: RangeEncoder) -> bytes:
    """Big-endian words without the zeros at the end, which the decoder puts back."""
    return encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")


def _from_bytes(data: bytes) -> RangeDecoder:
    return RangeDecoder(np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32))
