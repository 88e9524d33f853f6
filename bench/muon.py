"""Our batched Muon against torch.optim.Muon, one matrix at a time: milliseconds of a step.

On the matrices of #549 and on those of the laptop's default run. Both orthogonalise in bf16 with the same coefficients.
Weights and gradients are random, repetitions take turns, medians count. With a GPU it is measured too.
Run on a machine that does nothing else: python -m bench.muon
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from fairway.optim.muon import Muon
from stages.common import keep_freed_memory

REPETITIONS, THREADS = 15, 2
SHAPES = {  # (rows, columns) and how many of them
    "#549: query, output": [((512, 512), 22)],
    "#549: key, value": [((256, 512), 22)],
    "#549: up": [((1536, 512), 11)],
    "#549: down": [((512, 1536), 11)],
    "#549: all": [((512, 512), 22), ((256, 512), 22), ((1536, 512), 11), ((512, 1536), 11)],
    "laptop: all": [((256, 256), 12), ((128, 256), 12), ((512, 256), 6), ((256, 512), 6)],
}


def matrices(shapes: list[tuple[tuple[int, int], int]], device: str) -> list[torch.nn.Parameter]:
    """Random matrices with random gradients."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape, count in shapes:
        for _ in range(count):
            weight, gradient = torch.randn(2, *shape, generator=generator).to(device)
            found.append(torch.nn.Parameter(weight))
            found[-1].grad = gradient
    return found


def milliseconds(step: Callable, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begin = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - begin)


def compare(shapes: list[tuple[tuple[int, int], int]], device: str) -> tuple[float, float]:
    """Medians of ours and of PyTorch's, after two steps to warm up."""
    ours = Muon(matrices(shapes, device), lr=0.02, momentum=0.95, weight_decay=0.04)
    peer = torch.optim.Muon(matrices(shapes, device), lr=0.02, momentum=0.95, weight_decay=0.04)
    times = [(milliseconds(ours.step, device), milliseconds(peer.step, device)) for _ in range(2 + REPETITIONS)][2:]
    our, their = (median(column) for column in zip(*times, strict=True))
    return our, their


def measure(device: str) -> dict[str, float]:
    """Print the table of a device; PyTorch's time over ours by row."""
    print(f"{device}, torch {torch.__version__}" + f", {THREADS} threads" * (device == "cpu"))
    print("\n| matrices | Fairway ms | torch.optim.Muon ms | ratio |\n|---|---:|---:|---:|")
    ratios = {}
    for label, shapes in SHAPES.items():
        our, their = compare(shapes, device)
        ratios[label] = their / our
        print(f"| {label} | {our:.1f} | {their:.1f} | {their / our:.2f} |", flush=True)
    print()
    return ratios


def main() -> None:
    keep_freed_memory()  # as the stages do, for both
    torch.set_num_threads(THREADS)
    tables = {"": measure("cpu")}
    if torch.cuda.is_available():
        tables["_cuda"] = measure("cuda")
    for suffix, ratios in tables.items():
        print(f"figure muon_speed_ratio{suffix} = {ratios['#549: all']:.3f}")
        print(f"figure muon_speed_ratio_laptop{suffix} = {ratios['laptop: all']:.3f}")


if __name__ == "__main__":
    main()
