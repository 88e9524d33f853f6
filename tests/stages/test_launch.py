"""The launcher: an environment per rank, the exit status of the first rank to fail, no process left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages import launch, train

TOLD = """
import os, pathlib
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OMP_NUM_THREADS")
pathlib.Path("rank" + os.environ["RANK"]).write_text(" ".join(os.environ[name] for name in names))
"""
STOPPED = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(130))
pathlib.Path("rank" + os.environ["RANK"]).touch()
time.sleep(60)
"""
SHARED = """
import os, pathlib, signal, time
from stages.launch import shared
signal.signal(signal.SIGTERM, signal.default_int_handler)
with shared("program"):
    pathlib.Path("rank" + os.environ["RANK"]).write_text(str(os.getpid()))
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        pathlib.Path("stopped" + os.environ["RANK"]).touch()
"""
FAILING = """
import os, sys, time
if os.environ["RANK"] == "1":
    sys.exit(3)
time.sleep(60)
"""


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    """program, number of ranks → what launching it returns; the handlers of signals are put back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGTERM)}

    def run(program: str, count: int) -> int:
        (tmp_path / "program.py").write_text(program)
        return launch.launch("program", count)

    yield run
    for kind, handler in before.items():
        signal.signal(kind, handler)


@pytest.mark.parametrize(("set_threads", "threads"), [(None, "4"), ("1", "1")])
def test_each_rank_is_told_its_place(ranks, tmp_path, monkeypatch, set_threads, threads):
    """Threads are divided among ranks, at least one each, unless their number is set."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    if set_threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", set_threads)
    assert ranks(TOLD, 2) == 0
    told = [(tmp_path / f"rank{rank}").read_text().split() for rank in range(2)]
    port = told[0][5]
    assert told == [[str(rank), str(rank), "2", "2", "127.0.0.1", port, threads] for rank in range(2)] and int(port) > 1023


def test_ranks_that_outlive_a_failed_one_are_ended_after_the_grace(ranks, monkeypatch):
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    start = time.monotonic()
    assert ranks(FAILING, 3) == 3
    assert time.monotonic() - start < 50


def test_sigterm_reaches_every_rank(ranks, tmp_path):
    def once_all_are_there() -> None:
        while len(list(tmp_path.glob("rank?"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    messenger = threading.Thread(target=once_all_are_there)
    messenger.start()
    assert ranks(STOPPED, 2) == 130
    messenger.join()


def test_ranks_stop_when_their_launcher_is_killed(tmp_path):
    """Whatever the stage: those that share their work do it inside `shared`."""
    (tmp_path / "program.py").write_text(SHARED)
    paths = os.pathsep.join([str(tmp_path), str(Path(launch.__file__).parents[1])])
    command = [sys.executable, "-c", "from stages.launch import launch; launch('program', 2)"]
    launcher = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": paths})
    wait_for(tmp_path, "rank?", 2)
    launcher.kill()
    launcher.wait()
    wait_for(tmp_path, "stopped?", 2)


def wait_for(folder: Path, names: str, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(folder.glob(names))) < count:
        assert time.monotonic() < deadline, f"no {count} files {names}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("nproc", "gpus", "cpu_ranks", "expected"),
    [(None, 0, 1, 1), (None, 8, 1, 8), ("2", 8, 1, 2), ("", 4, 1, 4), (None, 0, 2, 2), ("1", 0, 2, 1), (None, 1, 2, 1)],
)
def test_one_rank_per_gpu_or_the_cpus_number_unless_nproc_is_set(monkeypatch, nproc, gpus, cpu_ranks, expected):
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: gpus)
    if nproc is None:
        monkeypatch.delenv("NPROC", raising=False)
    else:
        monkeypatch.setenv("NPROC", nproc)
    assert launch.visible_ranks(cpu_ranks) == expected


@pytest.mark.parametrize(("sequences", "ranks"), [(4, 2), (3, 1)])
def test_training_on_a_cpu_has_two_ranks_where_they_can_share_a_step(monkeypatch, sequences, ranks):
    asked = []

    @contextlib.contextmanager
    def shared(*words):
        asked.append(words)
        yield None

    config = SimpleNamespace(sequences_per_step=sequences, passes=None)
    monkeypatch.setattr(train, "load", lambda path, section, kind: config)
    monkeypatch.setattr(train, "shared", shared)
    monkeypatch.setattr(train, "train", lambda *settings: None)
    train.main()
    assert asked == [("train", None, ranks)]
