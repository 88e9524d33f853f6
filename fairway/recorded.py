"""What a dvc.lock says of a run: the files it wrote, by hash, and what it was made from; and how two runs compare."""

import hashlib
import json
from pathlib import Path

LOCK = Path("dvc.lock")
SAME, DIFFERS, GONE, NEW = "same bytes", "differs", "no longer written", "new"


def outputs(lock: dict, left_out: tuple[str, ...]) -> dict[str, str]:
    """The MD5 of every output in artifacts/ by path, in the order of the stages, without files named in `left_out`."""
    found = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}
    return {path: md5 for path, md5 in found.items() if path.startswith("artifacts/") and Path(path).name not in left_out}


def compare(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """SAME, DIFFERS, GONE or NEW for every path of either."""
    verdicts = {path: GONE if path not in after else SAME if after[path] == md5 else DIFFERS for path, md5 in before.items()}
    return verdicts | {path: NEW for path in after if path not in before}


def inputs(lock: dict) -> dict[str, object]:
    """Commands, params, and MD5s of code and data that a run was made from, by what they are."""
    found: dict[str, object] = {}
    for name, stage in lock["stages"].items():
        found[f"the command of {name}"] = stage.get("cmd")
        for path, values in stage.get("params", {}).items():
            found |= {f"{path}: {key} of {name}": json.dumps(value, sort_keys=True) for key, value in values.items()}
        deps = {dep["path"]: dep.get("md5") for dep in stage.get("deps", [])}
        found |= {path: md5 for path, md5 in deps.items() if not path.startswith(("artifacts/", "reports/"))}
    return found


def md5_of(path: Path) -> str | None:
    """The MD5 that DVC gives a file or a folder, from its bytes; None where there is nothing.

    That of a folder is of a JSON list of its files (dvc_data/hashfile/tree.py, 3.18).
    """
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        rows = [{"md5": md5_of(file), "relpath": file.relative_to(path).as_posix()} for file in files]
        listed = json.dumps(sorted(rows, key=lambda row: tuple(row["relpath"].split("/"))), sort_keys=True)
        return hashlib.md5(listed.encode(), usedforsecurity=False).hexdigest() + ".dir"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 where there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
