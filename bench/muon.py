"""Our batched Muon against torch.optim.Muon, one matrix at a time: milliseconds of a step on the matrices of #549.

Both orthogonalise in bf16 with the same coefficients. Weights and gradients are random, repetitions take turns, medians
count. With a GPU it is measured too. Run: python -m bench.muon
"""

import time
from collections.abc import Callable
from statistics import median

import torch

from fairway.optim.muon import Muon

LAYERS, REPETITIONS, THREADS = 11, 15, 2
SHAPES = {  # of one layer: (rows, columns), how many
    "query, output": ((512, 512), 2),
    "key, value": ((256, 512), 2),
    "up": ((1536, 512), 1),
    "down": ((512, 1536), 1),
}


def matrices(names: list[str], device: str) -> list[torch.nn.Parameter]:
    """Random matrices with random gradients."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for shape, count in (SHAPES[name] for name in names):
        for _ in range(LAYERS * count):
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


def compare(names: list[str], device: str) -> tuple[float, float]:
    """Medians of ours and of PyTorch's, after two steps to warm up."""
    ours = Muon(matrices(names, device), lr=0.02, momentum=0.95, weight_decay=0.04)
    peer = torch.optim.Muon(matrices(names, device), lr=0.02, momentum=0.95, weight_decay=0.04)
    times = [(milliseconds(ours.step, device), milliseconds(peer.step, device)) for _ in range(2 + REPETITIONS)][2:]
    our, their = (median(column) for column in zip(*times, strict=True))
    return our, their


def measure(device: str) -> float:
    """Print the table of a device; the ratio over all matrices."""
    print(f"{device}, torch {torch.__version__}" + f", {THREADS} threads" * (device == "cpu"))
    print("\n| matrices | Fairway ms | torch.optim.Muon ms | ratio |\n|---|---:|---:|---:|")
    for names in [*([name] for name in SHAPES), list(SHAPES)]:
        our, their = compare(names, device)
        label = names[0] if len(names) == 1 else "all of a step"
        print(f"| {label} | {our:.1f} | {their:.1f} | {their / our:.2f} |", flush=True)
    print()
    return their / our


def main() -> None:
    torch.set_num_threads(THREADS)
    figures = {"muon_speed_ratio": measure("cpu")}
    if torch.cuda.is_available():
        figures["muon_speed_ratio_cuda"] = measure("cuda")
    for name, ratio in figures.items():
        print(f"figure {name} = {ratio:.3f}")


if __name__ == "__main__":
    main()
