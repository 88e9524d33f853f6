"""What a stage rests on, from the contents of dvc.yaml and dvc.lock: the stages before it, their code, params, artifacts."""

import hashlib
import json
from collections.abc import Iterable

CLOCKS = "reports/"  # where stages write their seconds, which differ between runs of the same bytes


def before(pipeline: dict[str, dict], stage: str) -> list[str]:
    """The stages of a dvc.yaml whose outputs `stage` reads, directly or through others, in the order of the file."""
    makers = {path: name for name, entry in pipeline.items() for path in _paths(entry.get("outs", []))}
    found, waiting = set(), [stage]
    while waiting:
        needed = {makers[path] for path in pipeline[waiting.pop()].get("deps", []) if path in makers}
        waiting += needed - found
        found |= needed
    return [name for name in pipeline if name in found]


def sources(pipeline: dict[str, dict], stage: str) -> list[str]:
    """Paths of the code and data that `stage` and those before it read, sorted: files that git keeps."""
    outputs = {path for entry in pipeline.values() for path in _paths(entry.get("outs", []))}
    read = {path for name in [*before(pipeline, stage), stage] for path in pipeline[name].get("deps", [])}
    return sorted(read - outputs)


def digest(pipeline: dict[str, dict], locked: dict[str, dict], stage: str) -> str | None:
    """SHA-256 of the entries that the stages before `stage` have in dvc.lock; None if one has none.

    What is hashed: an object of stages, each with cmd, params, and the MD5 of every dep and out by path, as JSON with sorted
    keys and without spaces. Files in reports/ are left out, so that the digest repeats.
    """
    names = before(pipeline, stage)
    if not all(name in locked for name in names):
        return None
    content = {name: _repeated(locked[name]) for name in names}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _repeated(entry: dict) -> dict:
    files = {
        kind: {file["path"]: file.get("md5") for file in entry.get(kind, []) if not file["path"].startswith(CLOCKS)}
        for kind in ("deps", "outs")
    }
    return {"cmd": entry.get("cmd"), "params": entry.get("params", {})} | files


def _paths(entries: Iterable[str | dict]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
