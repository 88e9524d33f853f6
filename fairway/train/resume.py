"""What an interrupted run leaves behind, and whose it is.

A saved run belongs to its params, its data and its code: the three make its key, and a run with another key starts
afresh. The file is written beside its place and renamed, so it is whole or absent.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import torch

from fairway.train.loop import Run


def key(contents: Iterable[bytes]) -> str:
    """A name for a run: 16 hex digits of the SHA-256 of everything that determines it, in order."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


def save(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    torch.save(run.state_dict(), temporary)
    temporary.replace(path)


def load(path: Path, run: Run) -> bool:
    """Bring `run` to where the file left off; False when there is no file."""
    if not path.exists():
        return False
    run.load_state_dict(torch.load(path, weights_only=True))
    return True
