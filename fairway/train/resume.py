"""What an interrupted run leaves behind, and whose it is.

A saved run belongs to its params, its data, its code and its number of ranks: these make its key, and a run with another
key starts afresh. Every rank has a file of its own, named by step. A file is written beside its place and renamed, so it
is whole or absent; older ones go when every rank has the new one, so some step is always there on all ranks. A file that
its disk has damaged since is put aside with a line that says so: training goes on from an older step, or starts afresh.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from fairway.train.loop import Run
from fairway.train.ranks import Ranks


def key(contents: Iterable[bytes]) -> str:
    """A name for a run: 16 hex digits of the SHA-256 of everything that determines it, in order."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def save(folder: Path, run: Run, ranks: Ranks) -> None:
    """This rank's part of the run. All ranks save the same step together."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, run.step, ranks)
    temporary = path.with_suffix(".part")
    torch.save(run.state_dict(), temporary)
    temporary.replace(path)
    ranks.wait()
    for step in _steps(folder, ranks):
        if step != run.step:
            _path(folder, step, ranks).unlink()


def load(folder: Path, run: Run, ranks: Ranks) -> bool:
    """Bring `run` to the last step that all ranks have saved, whole; False when there is none."""
    while (step := _common_step(folder, ranks)) is not None:
        path = _path(folder, step, ranks)
        state = _state(path, ranks)
        if state is None:
            print(f"{path}: damaged, put aside; training goes on from an older save where there is one, or afresh", flush=True)
            path.replace(path.with_suffix(".damaged"))
        if all(whole for (whole,) in ranks.gather(float(state is not None))):
            break
    else:
        return False
    run.load_state_dict(state)
    for later in _steps(folder, ranks):  # of this rank alone: the next crash must not find them
        if later > step:
            _path(folder, later, ranks).unlink()
    return True


def _common_step(folder: Path, ranks: Ranks) -> int | None:
    """The last step that all ranks have saved."""
    steps = _steps(folder, ranks)
    step = int(min(latest for (latest,) in ranks.gather(max(steps, default=-1))))
    return step if all(has for (has,) in ranks.gather(float(step in steps))) else None


def _state(path: Path, ranks: Ranks) -> dict | None:
    """What is saved in a file; None where it is damaged. torch writes checksums of all parts and does not look at them."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        return torch.load(path, map_location=ranks.device, weights_only=True) if whole else None
    except (PermissionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a damaged file breaks its readers in many ways, and none of them is a reason to stop
        return None


def _path(folder: Path, step: int, ranks: Ranks) -> Path:
    return folder / f"step{step}.rank{ranks.rank}of{ranks.size}.pt"


def _steps(folder: Path, ranks: Ranks) -> list[int]:
    """The steps of which this rank has a whole file."""
    ending = f".rank{ranks.rank}of{ranks.size}.pt"
    return [int(path.name.removesuffix(ending).removeprefix("step")) for path in folder.glob(f"step*{ending}")]
