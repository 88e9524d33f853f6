"""Our weight coder against general compressors: bytes and seconds for the same integers in the same run.

Two networks, quantised as params.yaml says: the default run's, and one of #1406's full size (27 M parameters), which is
trained for a few steps only: Muon's matrices are near to white noise from the start. The peers get the integers of all
matrices as one text, a byte each, by rows and by columns, and keep the smaller (zpaq, slow, by rows only).
Also the time that quantising the second takes, its Hessians at hand. Run after `dvc repro`: python -m bench.weights
"""

import argparse
import lzma
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import brotli
import numpy as np
import torch
import zpaq
import zstandard

from bench.full_size import full_size
from fairway.codec.weights import decode_matrix, encode_matrix
from fairway.params import load
from fairway.quant import artifact, quantiser
from fairway.quant.config import Quant
from fairway.quant.grids import entropy_bits
from fairway.quant.matrix import QuantisedMatrix

Coders = dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]]
PEERS: Coders = {
    "zstd -22": (zstandard.ZstdCompressor(level=22).compress, zstandard.ZstdDecompressor().decompress),
    "lzma -9e": (lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    "brotli -11": (lambda text: brotli.compress(text, quality=11), brotli.decompress),
    "zpaq -5": (lambda text: zpaq.compress(text, 5), zpaq.decompress),
}


def on_threads(function: Callable, items: list) -> list:
    """As the container does it: one array a task, as many threads as cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def ours(matrices: list[QuantisedMatrix]) -> tuple[int, float, float]:
    """Bytes, seconds to encode, seconds to decode."""
    start = time.monotonic()
    coded = on_threads(lambda matrix: encode_matrix(matrix.integers, matrix.states), matrices)
    encoded = time.monotonic()
    pairs = list(zip(coded, matrices, strict=True))
    decoded = on_threads(lambda pair: decode_matrix(pair[0], pair[1].integers.shape, pair[1].states), pairs)
    finished = time.monotonic()
    assert all(np.array_equal(found, matrix.integers) for found, matrix in zip(decoded, matrices, strict=True))
    return sum(map(len, coded)), encoded - start, finished - encoded


def peer(name: str, texts: list[bytes]) -> tuple[int, float, float]:
    """The same of the smaller of several texts for the same integers; seconds are of that one."""
    compress, decompress = PEERS[name]
    results = []
    for text in texts:
        start = time.monotonic()
        coded = compress(text)
        encoded = time.monotonic()
        assert decompress(coded) == text
        results.append((len(coded), encoded - start, time.monotonic() - encoded))
    return min(results)


def table(title: str, key: str, matrices: list[QuantisedMatrix]) -> list[str]:
    """Prints the table of one network; its figures as lines."""
    weights = sum(matrix.integers.size for matrix in matrices)
    floor = sum(entropy_bits(torch.from_numpy(matrix.integers)) * matrix.integers.size / 8 for matrix in matrices)
    texts = [b"".join(turn(matrix.integers).tobytes() for matrix in matrices) for turn in (np.asarray, np.transpose)]
    rows = {"fairway": ours(matrices)} | {name: peer(name, texts[: 1 if "zpaq" in name else 2]) for name in PEERS}
    print(f"\n## {title}: {weights:,} integers, {sum(bool(matrix.states) for matrix in matrices)} matrices on a trellis\n")
    print("| coder | bytes | bits per weight | to fairway | encode s | decode s |\n|---|---:|---:|---:|---:|---:|")
    share = floor / rows["fairway"][0]
    print(f"| entropy of each matrix, no context | {floor:,.0f} | {8 * floor / weights:.4f} | {share:.4f} | | |")
    for name, (size, encode, decode) in rows.items():
        print(
            f"| {name} | {size:,} | {8 * size / weights:.4f} | {size / rows['fairway'][0]:.4f} | {encode:.2f} | {decode:.2f} |"
        )
    general = min(rows[name][0] for name in PEERS if "zpaq" not in name)
    own, (zpaq_size, _, zpaq_decode) = rows["fairway"], rows["zpaq -5"]
    return [
        f"figure {key}_to_best_general = {own[0] / general:.4f}",
        f"figure {key}_to_zpaq = {own[0] / zpaq_size:.4f}",
        f"figure {key}_zpaq_decode_seconds_to_ours = {zpaq_decode / own[2]:.1f}",
        f"figure {key}_encode_seconds = {own[1]:.2f}",
        f"figure {key}_decode_seconds = {own[2]:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="The weight coder against zstd, lzma, brotli and zpaq.")
    parser.add_argument("--steps", type=int, default=20, help="training steps of the full-size network")
    steps = parser.parse_args().steps
    warm = np.random.default_rng(0).normal(0, 3, (64, 64)).astype(np.int8)
    for states in (0, 8):
        decode_matrix(encode_matrix(warm, states), warm.shape, states)  # compiles

    _, default, _ = artifact.load(Path("artifacts/quant/integers.safetensors"))
    figures = table("The default run", "default", list(default.values()))

    params = load(Path("params.yaml"), "quant", Quant)
    architecture, state, curvatures = full_size(steps)
    start = time.monotonic()
    prepared = quantiser.prepare(state, curvatures, params, architecture.layers)
    quantised = list(quantiser.quantise(prepared, params).values())
    seconds = time.monotonic() - start
    figures += table(f"Full size, after {steps} steps", "full_size", quantised)
    print("\n" + "\n".join([*figures, f"figure full_size_quantise_seconds = {seconds:.1f}"]))


if __name__ == "__main__":
    main()
