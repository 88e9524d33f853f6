"""One process per visible GPU, as torchrun would start them, for stages that share their work among ranks.

Training on a CPU has CPU_RANKS processes. Two threads of one process wait for each other dozens of times per millisecond, and
spin while they wait: beside one other busy process they reach 0.5 of their rate, two ranks 0.6, and alone the ranks are as
fast (bench/results/contention.md). The number is constant because the order of sums, and so every bit of a checkpoint,
depends on it.

torchrun itself is for several nodes (`torchrun --nnodes 2 … -m stages.train`). On one node this prints less: a user's
mistake stays one sentence, Ctrl-C reaches every rank once, and when a rank fails the others are stopped.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fairway.train.ranks import Ranks

CPU_RANKS = 2
PARENT = os.getppid()
GRACE_SECONDS = 30  # for the other ranks to save after one has stopped


@contextmanager
def shared(stage: str, check: Callable[[int], object] = lambda size: None, cpu_ranks: int = 1) -> Iterator[Ranks]:
    """This process among the ranks of a stage. Where there are to be several it starts them and exits as they do.

    Without NPROC and without a GPU there are `cpu_ranks`. `check` raises InputError for a number of ranks that cannot share
    the work. torchrun's ranks are taken as they are. When the process that started the ranks dies, each of them is
    interrupted as by SIGTERM.
    """
    if "WORLD_SIZE" in os.environ:
        threading.Thread(target=_stop_without_launcher, daemon=True).start()
    elif (size := visible_ranks(cpu_ranks)) > 1:
        check(size)
        sys.exit(launch(f"stages.{stage}", size))
    ranks = Ranks.join()
    try:
        check(ranks.size)
        yield ranks
    finally:
        ranks.leave()


def _stop_without_launcher() -> None:
    while os.getppid() == PARENT:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def visible_ranks(cpu_ranks: int = 1) -> int:
    """NPROC where it is set, otherwise one rank per GPU, or `cpu_ranks` where there is none."""
    return int(os.environ.get("NPROC") or torch.cuda.device_count() or cpu_ranks)


def launch(module: str, ranks: int) -> int:
    """Run `python -m module` as so many ranks on this machine; return the exit status of the first that fails, or 0."""
    environment = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // ranks))),
    }
    command = [sys.executable, "-m", module]
    processes = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(ranks)
    ]

    def forward_signal(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    signal.signal(signal.SIGTERM, forward_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to every rank itself
    return _wait(processes)


def _wait(processes: list[subprocess.Popen]) -> int:
    """The status of the first rank to fail, or 0; ranks still running GRACE_SECONDS later are killed."""
    status, failed_at = 0, 0.0
    while True:
        statuses = [process.poll() for process in processes]
        if not status and any(statuses):
            status, failed_at = next(filter(None, statuses)), time.monotonic()
        if None not in statuses:
            return status
        if status and time.monotonic() - failed_at > GRACE_SECONDS:
            for process in processes:
                process.kill()
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
