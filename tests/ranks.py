"""Ranks of torch.distributed as processes of their own, for tests of what several ranks do together."""

import importlib
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import torch.multiprocessing

from stages.launch import free_port

LIBRARIES = ["torch", "torch.distributed", "numpy", "numba", "pytest", "hypothesis"]


def run_ranks(work: Callable, arguments: tuple, count: int) -> None:
    """Run `work(rank, *arguments)` in `count` processes, forked from one that has imported what takes long to import."""
    multiprocessing.set_forkserver_preload(LIBRARIES)
    torch.multiprocessing.start_processes(work, arguments, nprocs=count, start_method="forkserver")


def run_stage(stage: str, folder: Path, count: int) -> None:
    """Run a stage in a folder on `count` ranks, as torchrun starts them."""
    run_ranks(rank_of_stage, (stage, folder, count, free_port()), count)


def rank_of_stage(rank: int, stage: str, folder: Path, count: int, port: int) -> None:
    os.chdir(folder)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    importlib.import_module(f"stages.{stage}").main()
