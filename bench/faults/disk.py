"""A disk that is full, folders that may only be read, and two `dvc repro` at once.

The small disk is a tmpfs and the locked folder a bind mount, in a mount namespace of this process's own, which takes them
with it. Where mounting is not permitted (it takes root, whom permissions do not stop), a limit on the size of files stands
in for the full disk, and the locked folders are left out, with a line that says so.
"""

import ctypes
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.faults.pipeline import STAGES, Pipeline, Trial, differences, last_line, started
from fairway.params import read_yaml

CLONE_NEWNS = 0x00020000  # of linux/sched.h
FULL, LOCKED, BOTH = "disk full", "folder read-only", "two at once"
OURS = re.compile(r"^error: \S+: .+$", re.MULTILINE)  # the sentence of a stage
OF_DVC = re.compile(r"^ERROR: .+$", re.MULTILINE)
ANOTHER = ("is busy, it is being blocked by", "Unable to acquire lock")  # DVC's sentences for a second one
DVC_BYTES = 600 << 10  # that DVC writes itself in a run of one stage, at most
PAGE, LARGE = 1 << 12, 1 << 30  # bytes of the smallest disk (0 is no limit), and of one that is large enough
WHOLE, PAIRS = 3, 3  # trials of a disk that holds the whole clone, and of two at once
ORPHAN_SECONDS = 3  # that a stage has been at work when its DVC is killed
LOCKS = {"artifacts": STAGES[:-1], "reports": STAGES, ".ckpt": ("train",), ".dvc/cache": STAGES}  # folder: who writes there


def disk(pipeline: Pipeline, seed: int, only: str = "") -> list[Trial]:
    """The trials disk0, disk1, … or only one of them, each told as it ends."""
    trials = []
    for number, fault in enumerate(faults(pipeline, random.Random(f"{seed}/disk"), own_mounts())):
        name = f"disk{number}"
        if only in ("", name):
            trial = fault()
            trials.append(trial._replace(what=f"{name}: {trial.what}"))
            print(f"{trials[-1].what}: {trials[-1].outcome}", flush=True)
    return trials


def faults(pipeline: Pipeline, random: random.Random, mounting: bool) -> list[Callable[[], Trial]]:
    """Every stage with a small folder to write to, some on a small disk; each folder locked for a writer; pairs."""
    if not mounting:
        print(f"this process may not mount: no {LOCKED}, and a limit on the size of files instead of {FULL}", flush=True)
    places = [(stage, "reports" if stage == "report" else "artifacts") for stage in STAGES]
    places += [("train", ".ckpt")] + [(stage, ".") for stage in random.sample(STAGES, WHOLE)]
    full_disks = [partial(full, pipeline, stage, where if mounting else "", random.random()) for stage, where in places]
    locks = [partial(locked, pipeline, folder, random.choice(stages)) for folder, stages in LOCKS.items() if mounting]
    pairs = [partial(both, pipeline, random.choice(STAGES), random.uniform(0, 5)) for _ in range(PAIRS)]
    return full_disks + locks + pairs + [partial(orphaned, pipeline, stage) for stage in ("train", random.choice(STAGES))]


def full(pipeline: Pipeline, stage: str, where: str, part: float) -> Trial:
    """A stage that has room for a part of its outputs only, in the folder `where`; then one with room enough."""
    pipeline.restore()
    if where:
        room = int(part * output_bytes(pipeline, stage, where))
        pipeline.forget([stage])
        (pipeline.folder / where).mkdir(exist_ok=True)
        with small_disk(pipeline.folder / where, room) as enlarge:
            failed = pipeline.run("dvc", "repro", stage)
            enlarge()
            return judged(pipeline, FULL, f"{stage}, {room:,} bytes left in {where}", failed)
    pipeline.forget([stage])
    failed = pipeline.run("bash", "-c", f"ulimit -f 0; exec python -m stages.{stage}")
    return judged(pipeline, FULL, f"{stage}, no file may have a byte", failed)


def locked(pipeline: Pipeline, folder: str, stage: str) -> Trial:
    """A stage that may not write in a folder: by itself, then under DVC, then with permission."""
    pipeline.restore()
    pipeline.forget([stage])
    (pipeline.folder / folder).mkdir(exist_ok=True)
    with read_only(pipeline.folder / folder):
        alone = pipeline.run("python", "-m", f"stages.{stage}")
        failed = pipeline.run("dvc", "repro", stage)
    return judged(pipeline, LOCKED, f"{folder}, {stage}", alone if alone.returncode else failed)


def both(pipeline: Pipeline, stage: str, wait: float) -> Trial:
    """A second `dvc repro` while the first is at work: one ends well, the other too, or it says that another is at work."""
    pipeline.restore()
    pipeline.forget([stage])
    processes = []
    for seconds in (0, wait):
        time.sleep(seconds)
        processes.append(started(pipeline.place, "dvc", "repro"))
    said = [process.communicate()[0] for process in processes]
    well = [process.returncode == 0 for process in processes]
    wrong = [
        f"it fails: {last_line(text)}"
        for text, ended_well in zip(said, well, strict=True)
        if not ended_well and ("Traceback" in text or not any(sentence in text for sentence in ANOTHER))
    ]
    wrong += ["neither ended well"] * (not any(well)) + differences(pipeline.hashes(), pipeline.clean)
    outcome = "both ended well" if all(well) else "one ended well, one said that another is at work"
    return Trial(BOTH, f"{stage}, the second after {wait:.1f} s", "; ".join(wrong) or outcome, not wrong)


def orphaned(pipeline: Pipeline, stage: str) -> Trial:
    """DVC alone is killed, as by a system short of memory: its stage goes on, beside the one of the next `dvc repro`."""
    pipeline.restore()
    pipeline.forget([stage])
    with started(pipeline.place, "dvc", "repro", stage) as process:
        for line in process.stdout:
            if line.startswith("> "):  # the command that DVC has started
                break
        time.sleep(ORPHAN_SECONDS)
        process.kill()
        process.wait()
        ending = pipeline.again()
        said = process.stdout.read()
    wrong = (
        ["a traceback"] * ("Traceback" in said + ending.said) + ending.wrong + differences(pipeline.hashes(), pipeline.clean)
    )
    return Trial(BOTH, f"{stage}, whose DVC is killed", "; ".join([*ending.typed, *(wrong or ["the same bytes"])]), not wrong)


def judged(pipeline: Pipeline, kind: str, what: str, failed: subprocess.CompletedProcess) -> Trial:
    """The fault is gone: what a run said under it must be one sentence, and `dvc repro` must end with the same bytes."""
    said = failed.stdout + failed.stderr
    ours, of_dvc = OURS.search(said), OF_DVC.search(said)
    stage_failed = "failed to run" in said if failed.args[0] == "dvc" else failed.returncode
    wrong = ["a traceback"] * ("Traceback" in said) + ["no sentence that names a file"] * bool(stage_failed and not ours)
    note = f"“{(ours or of_dvc or [last_line(failed.stderr)])[0]}”" if failed.returncode else "nothing was missing"
    ending = pipeline.again()
    wrong += ending.wrong + differences(pipeline.hashes(), pipeline.clean)
    return Trial(kind, what, "; ".join([note, *ending.typed, *(wrong or ["then the same bytes"])]), not wrong)


def output_bytes(pipeline: Pipeline, stage: str, where: str) -> int:
    """What a run of the stage writes in a folder, at most."""
    outs = read_yaml(pipeline.folder / "dvc.lock")["stages"][stage]["outs"]
    inside = [out["size"] for out in outs if where == "." or out["path"].startswith(where)]
    return sum(inside) + (DVC_BYTES if where == "." else 0)


def own_mounts() -> bool:
    """A mount namespace of this process's own from now on; False where the system does not permit it."""
    if sys.platform != "linux" or ctypes.CDLL(None).unshare(CLONE_NEWNS):
        return False
    return subprocess.run(["mount", "--make-rprivate", "/"], check=False).returncode == 0


@contextmanager
def mounted(folder: Path, *words: str | Path) -> Iterator[None]:
    subprocess.run(["mount", *words, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield


@contextmanager
def small_disk(folder: Path, room: int) -> Iterator[Callable[[], None]]:
    """Let a folder be a disk of its own, which has so many bytes left; yields what makes it large."""
    with tempfile.TemporaryDirectory() as aside:
        subprocess.run(["cp", "-a", f"{folder}/.", aside], check=True)
        with mounted(folder, "-t", "tmpfs", "tmpfs"):
            subprocess.run(["cp", "-a", f"{aside}/.", folder], check=True)
            state = os.statvfs(folder)
            used = (state.f_blocks - state.f_bfree) * state.f_frsize
            resize = lambda size: subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)  # noqa: E731
            resize(max(used + room, PAGE))
            yield lambda: resize(LARGE)
