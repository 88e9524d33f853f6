"""What an interrupted run leaves behind, and whose it is.

A saved run belongs to its params, its data, its code and its number of ranks: these make its key, and a run with another
key starts afresh. Every rank has a file of its own, named by step. A file is written beside its place and renamed, so it
is whole or absent; older ones go when every rank has the new one, so some step is always there on all ranks.
"""

import hashlib
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
    """Bring `run` to the last step that all ranks have saved; False when there is none."""
    steps = _steps(folder, ranks)
    step = int(min(latest for (latest,) in ranks.gather(max(steps, default=-1))))
    if not all(has for (has,) in ranks.gather(float(step in steps))):
        return False
    run.load_state_dict(torch.load(_path(folder, step, ranks), map_location=ranks.device, weights_only=True))
    for later in steps:  # of this rank alone: the next crash must not find them
        if later > step:
            _path(folder, later, ranks).unlink()
    return True


def _path(folder: Path, step: int, ranks: Ranks) -> Path:
    return folder / f"step{step}.rank{ranks.rank}of{ranks.size}.pt"


def _steps(folder: Path, ranks: Ranks) -> list[int]:
    """The steps of which this rank has a whole file."""
    ending = f".rank{ranks.rank}of{ranks.size}.pt"
    return [int(path.name.removesuffix(ending).removeprefix("step")) for path in folder.glob(f"step*{ending}")]
