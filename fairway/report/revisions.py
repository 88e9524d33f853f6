"""What a revision says of itself: its scores, the params and the code that made them, and its validation text.

A revision is a commit, branch or tag, the name of a DVC experiment, or "workspace". Everything is read from files that
git keeps, so DVC is not started. Params and code are those in dvc.lock, which are what ran: params.yaml may have been
edited since.
"""

import difflib
import json
import math
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fairway.errors import InputError
from fairway.params import parse_yaml
from fairway.report.record import LEGAL, PROVED

WORKSPACE = "workspace"
SUMMARY, STAGES, LOCK = "reports/summary.json", "reports/report/stages.json", "dvc.lock"
SEED = "train.seed"
SCORELESS = {"certify", "report"}  # stages whose code and params change no score


@dataclass(frozen=True)
class Revision:
    name: str  # as the user wrote it
    metrics: dict  # reports/summary.json
    params: dict  # "section.key": value
    code: tuple  # path and MD5 of the data and of every file of code that the score depends on
    val_bytes: int
    val_targets: int  # tokens that are predicted: all but the first BOS

    @property
    def seed(self) -> object:
        return self.params.get(SEED)

    @property
    def verdict(self) -> str:
        """One of record.LEGAL; "" for a run that does not say. Unless it is PROVED, the score is an estimate."""
        word = LEGAL.get(self.metrics["legal"], "") if "legal" in self.metrics else ""
        return LEGAL[None] if word == PROVED and self.metrics.get("certified_tokens") != self.val_targets else word

    @property
    def recipe(self) -> tuple:
        """What makes the score, but for the seed: params and code."""
        scoring = {key: value for key, value in self.params.items() if key != SEED and key.split(".")[0] not in SCORELESS}
        return json.dumps(scoring, sort_keys=True), self.code

    @property
    def nats_per_bit(self) -> float:
        """Nats per token for each bit per byte, on this validation text with this tokenizer."""
        return math.log(2) * self.val_bytes / self.val_targets


def read(name: str) -> Revision:
    """The revision of that name. Raises InputError when there is none, or none with a report."""
    summary, text = parsed(name, SUMMARY, "val_bpb"), stage_metrics(name, "tokenize", "val_bytes", "val_tokens")
    return Revision(name, summary, *locked(name), text["val_bytes"], text["val_tokens"] - 1)


def locked(name: str) -> tuple[dict, tuple]:
    """The params and the code in a revision's dvc.lock. Raises InputError."""
    lock = content(name, LOCK)
    try:
        stages = parse_yaml(lock, LOCK)["stages"]
        return params_of(stages), code_of(stages)
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{name}: its {LOCK} is not as DVC writes it ({problem}); run `git checkout {LOCK}`") from None


def outputs(name: str, stage: str) -> dict[str, dict]:
    """What dvc.lock says of the files that a stage of a revision wrote, by path: md5 and size. Raises InputError."""
    try:
        entry = parse_yaml(content(name, LOCK), LOCK)["stages"][stage]
        return {out["path"]: {"md5": out["md5"], "size": out["size"]} for out in entry["outs"]}
    except (InputError, TypeError, KeyError, AttributeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{name}: its {LOCK} does not say what {stage} wrote ({problem}); run `dvc repro`") from None


def params_of(stages: dict) -> dict:
    """The params of all stages of a dvc.lock, by "section.key"."""
    flat = {}
    for stage in stages.values():
        for name, values in stage.get("params", {}).get("params.yaml", {}).items():
            whole = isinstance(values, dict)  # a section, not one key of it
            flat |= {f"{name}.{key}": value for key, value in values.items()} if whole else {name: values}
    return flat


def code_of(stages: dict) -> tuple:
    scoring = (stage for name, stage in stages.items() if name not in SCORELESS)
    deps = {dep["path"]: dep.get("md5") for stage in scoring for dep in stage.get("deps", [])}
    return tuple(sorted((path, md5) for path, md5 in deps.items() if path.startswith(("data", "fairway/", "stages/"))))


def stage_metrics(name: str, stage: str, *keys: str) -> dict:
    """The metrics of a stage in a revision, these keys among them. Raises InputError."""
    return with_keys(name, f"{STAGES}: {stage}", parsed(name, STAGES, stage)[stage], keys)


def parsed(name: str, path: str, *keys: str) -> dict:
    """An object with these keys in a JSON file of a revision. Raises InputError."""
    try:
        found = json.loads(content(name, path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: its {path} is not valid JSON ({error}); run `dvc repro report` there") from None
    return with_keys(name, path, found, keys)


def with_keys(name: str, where: str, found: object, keys: Iterable[str]) -> dict:
    for key in keys:
        if not isinstance(found, dict) or key not in found:
            raise InputError(f"{name}: its {where} has no key {key}; run `dvc repro` there and commit what it writes")
    return found


def content(name: str, path: str) -> bytes:
    """A file of a revision. Raises InputError when there is none."""
    if name == WORKSPACE:
        found = Path(path).read_bytes() if Path(path).is_file() else None
    else:
        shown = git("show", f"{resolve(name)}:./{path}")
        found = None if shown.returncode else shown.stdout
    if found is None:
        raise InputError(
            f"{name}: it has no {path}, which a finished `dvc repro` writes{'' if name == WORKSPACE else ' and a commit keeps'}"
        )
    return found


def resolve(name: str) -> str:
    """The hash of the commit that a name stands for: git's names first, then those of experiments. Raises InputError."""
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found.returncode == 0:
        return found.stdout.decode().split()[-1]
    if (repository := git("rev-parse", "--git-dir")).returncode:
        said = " ".join(repository.stderr.decode(errors="replace").split())
        raise InputError(f"{name}: git finds no revision but {WORKSPACE}: {said}")
    commits = experiments()
    matches = commits.get(name, [])
    if len(matches) > 1:
        raise InputError(f"{name}: {len(matches)} experiments have that name; give the commit, one of {', '.join(matches)}")
    if not matches:
        branches = git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags").stdout.decode().split()
        near = difflib.get_close_matches(name, [*commits, *branches, WORKSPACE, "HEAD"], n=1, cutoff=0.0)[0]
        raise InputError(f"{name}: no such commit, branch, tag or experiment; the nearest name is '{near}'")
    return matches[0]


def experiments() -> dict[str, list[str]]:
    """Commits of the DVC experiments by name. Their refs are refs/exps/<2 digits>/<38 digits of the baseline>/<name>."""
    commits: dict[str, list[str]] = {}
    for line in git("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps").stdout.decode().splitlines():
        commit, ref = line.split(" ", 1)
        parts = ref.split("/", 4)
        if len(parts) == 5 and len(parts[3]) == 38:
            commits.setdefault(parts[4], []).append(commit)
    return commits


def git(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(["git", *words], capture_output=True, check=False)
