"""The pipeline that faults are done to: a clone of the working tree's code with tiny params, run once without a fault.

Nothing of a stage is replaced: `dvc repro` runs the ten of them as for a user, only that the network is tiny and the params
ask for no long compiling. A copy of everything, DVC's cache and locks included, stands beside the clone, and each trial
starts from it. DVC links files of artifacts/ to those of its cache: whoever damages one puts a new file in its place, for
writing into it would damage the cache too.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import yaml

from fairway.params import read_yaml
from tests.gallery.pipeline import TINY, documents

ROOT = Path(__file__).resolve().parents[2]
STAGES = tuple(read_yaml(ROOT / "dvc.yaml")["stages"])
CODE = ("fairway", "stages", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml")
RESULTS = ("artifacts", "reports")
PARAMS = TINY | {
    "train": TINY["train"] | {"steps": 1000, "tokens_per_step": 128, "checkpoint_seconds": 0.1},
    "certify": TINY["certify"] | {"tokens": "all", "causality_tokens": 200, "causality_checks": 2},
}
# What differs between two undisturbed runs, and why. Of these files everything but numbers, padding and drawings is compared.
TIMED = {
    "reports/*/timing.json": "seconds and rates",
    "artifacts/certify/certificate.md": "shows the seconds of the stages",
    "reports/report/certificate.md": "a copy of the certificate's page",
    "reports/index.html": "shows and draws the seconds of the stages",
}
# What DVC says when a kill or a full disk has left one of its own files unusable, and what docs/faults.md has the user type.
REMEDIES = {
    "Unable to read RWLock-file": "rm .dvc/tmp/rwlock",
    "is busy, it is being blocked by": "rm .dvc/tmp/rwlock",
    "dvc.lock' is invalid": "rm dvc.lock",
    "dvc.lock' validation failed": "rm dvc.lock",
    "index.lock": "rm .git/index.lock",
    "join() argument must be str": "find .dvc/cache/runs -type d -empty -delete",
}
OF_DVC = re.compile(r"^\.[\w-]{22}\.tmp$")  # what DVC leaves of a file that it could not put in its place
NUMBER = re.compile(rb"\d[\d.,]*")
PADDING = re.compile(rb"[ -]+")  # of a table, as wide as its numbers
DRAWING = re.compile(rb"<svg.*?</svg>", re.DOTALL)  # one of them has an axis of seconds; the others are files of their own
GIT = ("git", "-c", "user.name=faults", "-c", "user.email=faults@localhost")


class Trial(NamedTuple):
    """One fault, and how it ended."""

    kind: str  # of fault
    what: str  # was done, with what it takes to do it again
    outcome: str
    survived: bool


class Ending(NamedTuple):
    """How `dvc repro` ended after a fault."""

    said: str
    remedies: dict[str, str]  # DVC's messages, and what the user had to type about them first
    wrong: list[str]  # why it failed, where it did

    @property
    def typed(self) -> list[str]:
        return [f"“{message}”: {command}" for message, command in self.remedies.items()]


class Pipeline(NamedTuple):
    """A clone that has been run once, and the copy beside it."""

    place: Path
    clean: dict[str, str]  # hashes after the undisturbed run

    @property
    def folder(self) -> Path:
        """Of the clone."""
        return self.place / "fairway"

    def run(self, *words: str) -> subprocess.CompletedProcess:
        """Run a command in the clone to its end."""
        return run(self.place, *words)

    def again(self) -> "Ending":
        """`dvc repro` after a fault, and where it fails what docs/faults.md tells the user to do about its message."""
        remedies = {}
        while (finished := self.run("dvc", "repro")).returncode:
            said = finished.stdout + finished.stderr
            found = {message: command for message, command in REMEDIES.items() if message in said and message not in remedies}
            if not found:
                return Ending(said, remedies, [f"dvc repro fails: {last_line(finished.stderr)}"])
            remedies |= found
            for command in found.values():
                self.run(*command.split())
        return Ending(finished.stdout + finished.stderr, remedies, [])

    def hashes(self) -> dict[str, str]:
        """SHA-256 of every file in artifacts/ and reports/, by path; of those in TIMED without their numbers."""
        return hashes(self.folder)

    def restore(self) -> None:
        """Everything as it was after the undisturbed run."""
        for name in ("fairway", "tmp"):
            shutil.rmtree(self.place / name)
        subprocess.run(["cp", "-a", self.place / "kept", self.folder], check=True)
        (self.place / "tmp").mkdir()

    def forget(self, stages: Iterable[str]) -> None:
        """Let stages never have run: no outputs, nothing of them in dvc.lock, DVC's cache and its run cache."""
        lock = read_yaml(self.folder / "dvc.lock")
        for stage in stages:
            for out in lock["stages"].pop(stage)["outs"]:
                remove(self.folder / out["path"])
                for name in objects(self.folder, out["md5"]):
                    remove(name)
            for path in (self.folder / ".dvc/cache/runs").glob("*/*/*"):
                if f"cmd: python -m stages.{stage}\n" in path.read_text(encoding="utf-8"):
                    shutil.rmtree(path.parent)
        (self.folder / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False), encoding="utf-8")


def pipeline(place: Path) -> Pipeline:
    """Make the clone in an empty folder and run it."""
    clone(place / "fairway")
    (place / "tmp").mkdir()
    finished = run(place, "dvc", "repro")
    if finished.returncode:
        raise RuntimeError(finished.stdout + finished.stderr)
    subprocess.run(["cp", "-a", place / "fairway", place / "kept"], check=True)
    return Pipeline(place, hashes(place / "fairway"))


def clone(folder: Path) -> None:
    """The code as it stands in the working tree, tiny params and documents, committed in a repository of their own."""
    for name in CODE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    params = read_yaml(ROOT / "params.yaml")
    params |= {section: params[section] | values for section, values in PARAMS.items()}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data/documents.jsonl").write_text(documents(), encoding="utf-8")
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run([*GIT, *words], cwd=folder, check=True)


def environment(place: Path) -> dict[str, str]:
    """Of every command: this Python first on the path, one thread, and nothing left outside the place."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    own = {"TMPDIR": str(place / "tmp"), "DVC_SITE_CACHE_DIR": str(place / "fairway/.dvc/tmp/site")}
    return os.environ | own | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}


def started(place: Path, *words: str) -> subprocess.Popen:
    """A command in the clone that leads a process group of its own; what it says, on both streams, as it says it."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    return subprocess.Popen(words, cwd=place / "fairway", env=environment(place), start_new_session=True, **streams)


def run(place: Path, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        words, cwd=place / "fairway", env=environment(place), capture_output=True, text=True, errors="replace", check=False
    )


def hashes(folder: Path) -> dict[str, str]:
    paths = (
        path for name in RESULTS for path in (folder / name).rglob("*") if not path.is_dir() and not OF_DVC.search(path.name)
    )
    return {(name := path.relative_to(folder).as_posix()): digest(name, path.read_bytes()) for path in sorted(paths)}


def digest(name: str, content: bytes) -> str:
    """SHA-256 of a file; where its name is in TIMED, of all but its numbers and the padding around them."""
    if any(fnmatch(name, pattern) for pattern in TIMED):
        content = PADDING.sub(b" ", NUMBER.sub(b"#", DRAWING.sub(b"", content)))
    return hashlib.sha256(content).hexdigest()


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """What is missing, what is there besides, and what has other bytes, in words."""
    return (
        [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
        + [f"{path} is there besides" for path in sorted(found.keys() - expected.keys())]
        + [f"{path} has other bytes" for path in sorted(found.keys() & expected.keys()) if found[path] != expected[path]]
    )


def last_line(said: str) -> str:
    return (said.strip().splitlines() or ["it said nothing"])[-1]


def objects(folder: Path, md5: str) -> list[Path]:
    """The files of DVC's cache that an output is kept in."""
    cache = folder / ".dvc/cache/files/md5"
    path = cache / md5[:2] / md5[2:]
    if not md5.endswith(".dir") or not path.exists():
        return [path]
    return [path, *(cache / entry["md5"][:2] / entry["md5"][2:] for entry in json.loads(path.read_bytes()))]


def remove(path: Path) -> None:
    """A file or a folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
