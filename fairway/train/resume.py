"""Saves of a training run, and which run may continue from them.

A save belongs to its params, its data, its code (these make its key) and its number of ranks; another run starts from
step 0. Every rank writes a file of its own, named by step; older files are removed once every rank has the new one, so some
step is always there on all ranks. A file that was damaged on disk is renamed: training continues from an older step.
"""

import hashlib
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from fairway.files import replacing
from fairway.train.ranks import Ranks
from fairway.train.step import TrainState


def key(contents: Iterable[bytes]) -> str:
    """A name for a run: 16 hex digits of the SHA-256 of all that determines it, in order."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def save(folder: Path, state: TrainState, ranks: Ranks) -> None:
    """Save this rank's part of a run. All ranks save the same step together."""
    content = io.BytesIO()  # straight into a file, torch says of a full disk that its writer failed, and not which file it was
    torch.save(state.state_dict(), content)
    with replacing(_path(folder, state.step, ranks)) as temporary:
        temporary.write_bytes(content.getbuffer())
    ranks.barrier()
    for step in _steps(folder, ranks):
        if step != state.step:
            _path(folder, step, ranks).unlink()


def load(folder: Path, state: TrainState, ranks: Ranks) -> bool:
    """Bring `state` to the last step of which all ranks have an undamaged file; False when there is none."""
    while (step := _common_step(folder, ranks)) is not None:
        path = _path(folder, step, ranks)
        content = _content(path, ranks)
        if content is None:
            print(f"{path}: damaged, put aside; training goes on from an older save where there is one, or afresh", flush=True)
            path.replace(path.with_suffix(".damaged"))
        if all(whole for (whole,) in ranks.gather(float(content is not None))):
            break
    else:
        return False
    state.load_state_dict(content)
    for later in _steps(folder, ranks):  # that only this rank has: the next crash must not find them
        if later > step:
            _path(folder, later, ranks).unlink()
    return True


def _common_step(folder: Path, ranks: Ranks) -> int | None:
    """The last step that all ranks have saved."""
    steps = _steps(folder, ranks)
    step = int(min(latest for (latest,) in ranks.gather(max(steps, default=-1))))
    return step if all(has for (has,) in ranks.gather(float(step in steps))) else None


def _content(path: Path, ranks: Ranks) -> dict | None:
    """The content of a save; None where it is damaged. torch writes checksums of all parts but does not check them."""
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        return torch.load(path, map_location=ranks.device, weights_only=True) if whole else None
    except (PermissionError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception:  # a damaged file breaks its readers in many ways, none of which is a reason to stop
        return None


def _path(folder: Path, step: int, ranks: Ranks) -> Path:
    return folder / f"step{step}.rank{ranks.rank}of{ranks.size}.pt"


def _steps(folder: Path, ranks: Ranks) -> list[int]:
    """The steps of which this rank has a whole file."""
    ending = f".rank{ranks.rank}of{ranks.size}.pt"
    return [int(path.name.removesuffix(ending).removeprefix("step")) for path in folder.glob(f"step*{ending}")]
