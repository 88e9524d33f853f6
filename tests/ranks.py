"""Ranks of torch.distributed as processes of their own, for tests of what several ranks do together."""

import multiprocessing
from collections.abc import Callable

import torch.multiprocessing

LIBRARIES = ["torch", "torch.distributed", "numpy", "numba", "pytest", "hypothesis"]


def run_ranks(work: Callable, arguments: tuple, count: int) -> None:
    """Run `work(rank, *arguments)` in `count` processes, forked from one that has imported what takes long to import."""
    multiprocessing.set_forkserver_preload(LIBRARIES)
    torch.multiprocessing.start_processes(work, arguments, nprocs=count, start_method="forkserver")
