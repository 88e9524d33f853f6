"""Ways to quantise the default checkpoint: bytes of the weights file against what they cost in bits per byte.

The checkpoint is that of `train`, which has not learned from the holdout split: the increase over its float weights is
measured there, on evenly spaced windows of the training length, the same for all. Each way is run at three or more step sizes
(`quant.bits`) and coded by the real container. At equal increase, bytes are compared between points, by lines through
the logarithms. Prints a table, and keeps it with a rate-distortion plot in bench/results/.
Run after `dvc repro`: python -m bench.quantisers
"""

import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch

from fairway.codec import container
from fairway.lm import checkpoint
from fairway.lm.model import GPT
from fairway.params import load
from fairway.quant import calibration, hessian, quantiser
from fairway.quant.config import Quant
from fairway.report import charts
from fairway.score.bits import bits_per_byte
from fairway.score.windows import score_windows
from fairway.text.byte_count import table_bytes
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer

ARTIFACTS = Path("artifacts")
RESULTS = Path(__file__).parent / "results"
WINDOWS = 320  # of the training length, from the holdout split
BITS = (4, 5, 6)
CLIP = {"clip": 8.0, "embedding_clip": 8.0}  # so that 4 to 6 bits are 2 to 4 bits per weight after the coder
PLAIN = {"allocation": "uniform", "trellis": 0, "rotation": "none", "rate_weight": 0.0} | CLIP
GPTQ = {"method": "gptq"} | PLAIN
WAYS = {
    "rtn": {"method": "rtn"} | PLAIN,
    "gptq_lite (percentile of each row)": {"method": "gptq_lite", "clip_rule": "percentile_row"} | PLAIN,
    "gptq": GPTQ,
    "gptq, rate-aware 0.1": GPTQ | {"rate_weight": 0.1},
    "gptq, rate-aware 0.3": GPTQ | {"rate_weight": 0.3},
    "gptq, low-rank repair of 8 matrices": GPTQ | {"repair_matrices": 8},
    "gptq, Hadamard": GPTQ | {"rotation": "hadamard"},
    "gptq, pruned 15 %": GPTQ | {"prune_fraction": 0.15},
    "gptq, trellis of 8": GPTQ | {"trellis": 8},
    "gptq, sensitivity": GPTQ | {"allocation": "sensitivity"},
    "gptq, sensitivity, trellis of 4": GPTQ | {"allocation": "sensitivity", "trellis": 4},
    "gptq, sensitivity, trellis of 8": GPTQ | {"allocation": "sensitivity", "trellis": 8},
    "gptq, sensitivity, trellis of 8, rate-aware 0.1": GPTQ | {"allocation": "sensitivity", "trellis": 8, "rate_weight": 0.1},
    "gptq, sensitivity, trellis of 8, Hadamard": GPTQ | {"allocation": "sensitivity", "trellis": 8, "rotation": "hadamard"},
}
REFERENCE, BEST = "gptq", "gptq, sensitivity, trellis of 8, Hadamard"
Point = tuple[int, float, float, float]  # bytes, increase in bpb, estimated increase in bpb, seconds


class Bench:
    """The float network, its curvature, and the text it is scored on."""

    def __init__(self):
        architecture, self.state = checkpoint.load(ARTIFACTS / "train/checkpoint.safetensors")
        self.model = GPT(architecture).eval()
        self.model.load_state_dict(self.state)
        tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
        tokens, length = read_split(ARTIFACTS / "tokenize/holdout", tokenizer.vocabulary_size), architecture.sequence_length
        starts = hessian.evenly_spaced(len(tokens), length + 1, WINDOWS)
        self.windows = [np.asarray(tokens[start : start + length + 1]) for start in starts]
        counted = table_bytes(tokenizer).lossless_bytes
        self.bytes = sum(int(counted[window[1:]].sum()) for window in self.windows)
        self.tokens = WINDOWS * length
        train = read_split(ARTIFACTS / "tokenize/train", tokenizer.vocabulary_size)
        params = load("params.yaml", "quant", Quant)
        batches = calibration.windows(train, params.calibration_tokens // length, length, 32)
        self.curvatures, self.params = hessian.collect(self.model, batches), params
        self.float_bpb = self.bpb(self.state)

    def bpb(self, state: dict[str, torch.Tensor]) -> float:
        self.model.load_state_dict(state)
        length = self.model.architecture.sequence_length
        nats = np.concatenate([score_windows(self.model, window, length, length)["nats"] for window in self.windows])
        return bits_per_byte(nats, self.bytes)

    def point(self, way: dict, bits: int) -> Point:
        params = dataclasses.replace(self.params, **way, bits=bits)
        start = time.monotonic()
        prepared = quantiser.prepare(self.state, self.curvatures, params, self.model.architecture.layers)
        matrices = quantiser.quantise(prepared, params)
        seconds = time.monotonic() - start
        fp16 = quantiser.fp16_tensors(self.state, params.small_mantissa_bits)
        size = len(container.write(dataclasses.asdict(self.model.architecture), matrices, fp16))
        loss = quantiser.summarise(quantiser.describe(prepared, matrices, params))["estimated_loss"]
        increase = self.bpb(dequantised(matrices, fp16)) - self.float_bpb
        return size, increase, loss * self.tokens / np.log(2) / self.bytes, seconds


def dequantised(matrices: dict[str, quantiser.QuantisedMatrix], fp16: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Every tensor of the network in float32, by name."""
    arrays = {name: matrix.weights() for name, matrix in matrices.items()} | fp16
    return {name: torch.from_numpy(array.astype(np.float32)) for name, array in arrays.items()}


def bytes_at(points: dict[int, Point], increase: float) -> float:
    """The bytes that cost an increase, on the line through the logarithms of the two nearest points (beyond them as well)."""
    ordered = sorted((np.log(point[1]), np.log(point[0])) for point in points.values())
    place = min(max(np.searchsorted([x for x, _ in ordered], np.log(increase)), 1), len(ordered) - 1)
    (x0, y0), (x1, y1) = ordered[place - 1 : place + 1]
    return float(np.exp(y0 + (np.log(increase) - x0) * (y1 - y0) / (x1 - x0)))


def plot(results: dict[str, dict[int, Point]], path: Path) -> None:
    """Increase against bytes: REFERENCE, BEST and rounding to nearest in color, the other ways thin and named by their dots."""
    colors = {"rtn": "green", REFERENCE: "blue", BEST: "orange"}
    curves = []
    for way, points in sorted(results.items(), key=lambda item: item[0] in colors):  # those in color lie on top
        size, increase, *_ = zip(*sorted(points.values()), strict=True)
        curves.append(charts.Curve(colors.get(way, "grey thin"), size, increase, way))
    axes = ("bytes of the weights file", "increase over float, bits per byte (log scale)")
    panel = charts.curves(curves, axes, logarithmic=True, dots=True)
    legend = {color: way for way, color in colors.items()} | {"grey": "the other ways"}
    path.write_bytes(charts.document(charts.svg("what quantisation costs", panel, legend=legend)))


def table(results: dict[str, dict[int, Point]]) -> list[str]:
    lines = ["| way | bits | bytes | increase in bpb | estimated | bytes of gptq at equal increase | seconds |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for way, points in results.items():
        for bits, (size, increase, estimate, seconds) in points.items():
            share = size / bytes_at(results[REFERENCE], increase)
            lines.append(f"| {way} | {bits} | {size:,} | {increase:.5f} | {estimate:.5f} | {share:.3f} | {seconds:.1f} |")
    return lines


def main() -> None:
    bench = Bench()
    results: dict[str, dict[int, Point]] = {}
    for way, settings in WAYS.items():
        results[way] = {}
        for bits in BITS:
            results[way][bits] = bench.point(settings, bits)
            size, increase, *_ = results[way][bits]
            print(f"{way}, {bits} bits: {size:,} bytes, +{increase:.5f} bpb", file=sys.stderr, flush=True)
    shares = [results[BEST][bits][0] / bytes_at(results[REFERENCE], results[BEST][bits][1]) for bits in BITS]
    figures = [
        f"figure gptq_increase_to_rtn_{bits}_bits = {results['gptq'][bits][1] / results['rtn'][bits][1]:.3f}" for bits in BITS
    ]
    figures += [f"figure best_bytes_to_gptq_at_equal_bpb_{b}_bits = {share:.3f}" for b, share in zip(BITS, shares, strict=True)]
    intro = (
        f"# Ways to quantise the default checkpoint\n\nFloat: {bench.float_bpb:.4f} bpb on {bench.tokens:,} holdout tokens.\n"
    )
    text = "\n".join([intro, *table(results), "", *figures]) + "\n"
    print(text)
    (RESULTS / "quantisers.md").write_text(text, encoding="utf-8")
    plot(results, RESULTS / "quantisers.svg")


if __name__ == "__main__":
    main()
