"""Run the pipeline of the last commit again, from its params, code and data alone, and compare what it writes with dvc.lock.

`python -m fairway.replay` clones HEAD into a fresh folder, with an empty DVC cache, no `.ckpt/`, no compiled kernels and an
environment of its own, runs every stage, and hashes every file of artifacts/ itself. What a planted state, a poisoned cache
or an edited file has added to the recorded run is missing here. It prints a table of stages, writes reports/replay.json, and
exits with 1 if a file differs.

Bytes repeat on CPUs of one kind. On a GPU, or on another kind of CPU, they do not, and the score is compared instead:
`--seeds` names runs of other seeds, whose scores say how much chance moves it, or `--noise` gives their standard deviation.
"""

import argparse
import datetime
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from fairway.errors import InputError
from fairway.files import replacing
from fairway.markdown import table
from fairway.params import read_yaml
from fairway.proof.untrusted import parsed
from fairway.recorded import LOCK, SAME, compare, inputs, md5_of, outputs, size_of
from fairway.report import revisions
from fairway.report.significance import upper_tail

RECORD = Path("reports/replay.json")
SUMMARY, TRAINING = "reports/summary.json", "reports/train/metrics.json"
ARTIFACT, CERTIFICATE = "artifacts/certify/submission.pyz", "artifacts/certify/certificate.json"
COPY = "reports/report/certificate.json"  # which git keeps
OF_COMMIT = ("commit", "dirty")  # of a certificate: the recorded run was made before its commit
WITH_CLOCKS = ("certificate.md",)  # files in artifacts/ that contain seconds
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "CC", "CXX", "NPROC", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
KEPT = (".py", ".dvc", "dvc.yaml", "params.yaml", ".gitignore", ".dvcignore", ".dvc/config")  # ends of names that stay
LEVEL = 0.01  # of p, below which a score is not one of those that chance gives
SHOWN = 8  # differing files or inputs that are named


class Outcome(NamedTuple):
    """`repeats`: whether bytes repeat here, on a CPU whose arithmetic is that of the recorded run, as far as it is known."""

    verdicts: dict[str, str]  # SAME, DIFFERS, GONE or NEW by path
    sizes: dict[str, int]
    stages: dict[str, str]  # by path
    repeats: bool
    scores: tuple[float, float]  # val_bpb recorded, and replayed
    p: float | None  # of a difference this large by chance; None: nobody said how large that is

    @property
    def same_bytes(self) -> bool:
        return set(self.verdicts.values()) == {SAME}

    @property
    def verdict(self) -> str:
        if self.same_bytes:
            return "same bytes"
        return "same score, within the noise of seeds" if not self.repeats and (self.p or 0) >= LEVEL else "differs"


def main() -> int:
    options = arguments().parse_args()
    refuse_unclean()
    recorded, commit = read_yaml(LOCK), git("rev-parse", "HEAD")
    artifact, certificate = known(recorded)
    arithmetic = str(certificate.get("arithmetic", ""))
    with tempfile.TemporaryDirectory(prefix="replay-", dir=options.folder) as parent:
        clone = Path(parent, "fairway")
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ".", clone], check=True)
        score = number(clone / SUMMARY, "val_bpb")
        prepare(clone)
        print(f"replay: {commit[:12]} in {clone}, every stage from params, code and data", flush=True)
        if status := run(clone, "repro", "--no-run-cache", parent=Path(parent)):
            raise InputError(f"replay: a stage failed with status {status} in the clean clone; its message stands above")
        again, here = number(clone / SUMMARY, "val_bpb"), arithmetic_here()
        on_cpu = (clone / TRAINING).exists() and parsed((clone / TRAINING).read_bytes()).get("device") == "cpu"
        repeats = on_cpu and arithmetic in ("", here)
        outcome = judged(recorded, certificate, clone, repeats, (score, again), chance(score, again, options))
        other = differing_inputs(recorded, read_yaml(clone / LOCK))
        artifact = artifact or (sha256(clone / ARTIFACT) if outcome.verdicts.get(ARTIFACT) == SAME else "")
    print(page(outcome, other))
    write(outcome, {"commit": commit, "arithmetic": here, "recorded_arithmetic": arithmetic, "submission_sha256": artifact})
    return int(outcome.verdict == "differs")


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairway.replay", description="Run the last commit's pipeline again, from nothing."
    )
    parser.add_argument("--folder", type=Path, help="where the clone is made (default: the system's temporary folder)")
    noise = parser.add_mutually_exclusive_group()
    noise.add_argument("--seeds", nargs="+", metavar="REV", default=[], help="runs of other seeds, on a GPU")
    noise.add_argument("--noise", type=float, metavar="BPB", help="standard deviation of val_bpb over seeds, on a GPU")
    return parser


def refuse_unclean() -> None:
    """Raises InputError when tracked files differ from the last commit, which alone is repeated, or nothing was recorded."""
    if changed := git("status", "--porcelain", "--untracked-files=no"):
        names = ", ".join(line.split(maxsplit=1)[-1] for line in changed.splitlines()[:SHOWN])
        raise InputError(f"replay: {names}: not as in the last commit, which is what a replay repeats; commit or restore them")
    if not LOCK.is_file():
        raise InputError(f"{LOCK}: missing; a replay compares with it: run `dvc repro` and commit {LOCK}")
    if not isinstance(read_yaml(LOCK).get("stages"), dict):
        raise InputError(f"{LOCK}: expected `stages`, as DVC writes them; run `git checkout {LOCK}`")


def git(*words: str) -> str:
    """What git prints. Raises InputError."""
    finished = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    if finished.returncode:
        raise InputError(f"replay: git {' '.join(words)}: {finished.stderr.strip().splitlines()[-1]}")
    return finished.stdout.strip()


def known(lock: dict) -> tuple[str, dict]:
    """The SHA-256 of the recorded artifact, "" where the file that the lock names is not here; and its certificate, or {}."""
    hashes = outputs(lock, ())
    here = {path: md5_of(Path(path)) for path in (ARTIFACT, CERTIFICATE, COPY)}
    copies = [path for path in (CERTIFICATE, COPY) if here[path] == hashes.get(CERTIFICATE) is not None]
    artifact = sha256(Path(ARTIFACT)) if here[ARTIFACT] == hashes.get(ARTIFACT) is not None else ""
    return artifact, parsed(Path(copies[0]).read_bytes()) if copies else {}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arithmetic_here() -> str:
    """As on a certificate, whose coder runs on one thread."""
    import torch

    from fairway.submission.text import arithmetic

    torch.set_num_threads(1)
    return arithmetic()


def prepare(clone: Path) -> None:
    """Leave nothing but code, params and declared inputs; keep the cache beside the clone; and fetch data that DVC tracks."""
    for path in undeclared(clone):
        (clone / path).unlink()
    parent, original = clone.parent, Path.cwd() / ".dvc/cache"
    run(clone, "config", "--quiet", "--local", "cache.dir", str(parent / "cache"), parent=parent)
    tracked = [str(path.relative_to(clone)) for path in clone.rglob("*.dvc") if path.is_file()]
    if tracked:
        run(clone, "remote", "add", "--quiet", "--local", "original", str(original), parent=parent)
        if run(clone, "pull", "--quiet", "--remote", "original", *tracked, parent=parent):
            raise InputError(f"replay: {', '.join(tracked)}: this data is not in {original}; run `dvc pull` first")


def undeclared(clone: Path) -> list[str]:
    """Files of the commit that are neither code nor configuration nor declared by a stage; what was recorded is among them."""
    stages = read_yaml(clone / "dvc.yaml")["stages"].values()
    declared = {dep for stage in stages for dep in stage.get("deps", []) if not dep.startswith(("artifacts/", "reports/"))}
    tracked = git("-C", str(clone), "ls-files", "-z").split("\0")
    return [
        path for path in filter(None, tracked) if not (path.endswith(KEPT) or declared & {path, *map(str, Path(path).parents)})
    ]


def run(clone: Path, *words: str, parent: Path) -> int:
    """The exit status of a DVC command in the clone, with a home and temporary files of its own."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment.get("PATH", os.defpath)))
    for name in ("HOME", "TMPDIR", "DVC_SITE_CACHE_DIR"):
        environment[name] = str(parent / name.lower())
        Path(environment[name]).mkdir(exist_ok=True)
    environment |= {"DVC_NO_ANALYTICS": "1", "PYTHONNOUSERSITE": "1"}
    return subprocess.run([sys.executable, "-m", "dvc", *words], cwd=clone, env=environment, check=False).returncode


def number(path: Path, key: str) -> float:
    """Raises InputError."""
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path.name}: expected it to be in the commit, with a number {key}; run `dvc repro` and commit it"
        ) from None


def judged(lock: dict, certificate: dict, clone: Path, repeats: bool, scores: tuple[float, float], p: float | None) -> Outcome:
    """Hash what the replay wrote. A certificate is the same if nothing differs but the commit that it names."""
    recorded = outputs(lock, WITH_CLOCKS)
    expected = outputs(read_yaml(clone / LOCK), WITH_CLOCKS) | recorded  # also files that only the replay wrote
    found = {path: md5 for path in expected if (md5 := md5_of(clone / path))}
    again = parsed((clone / CERTIFICATE).read_bytes()) if CERTIFICATE in found else {}
    if certificate and without_commit(again) == without_commit(certificate):
        found[CERTIFICATE] = recorded[CERTIFICATE]
    stages = {out["path"]: name for name, stage in lock["stages"].items() for out in stage.get("outs", [])}
    sizes = {path: size_of(clone / path) for path in expected}
    return Outcome(compare(recorded, found), sizes, stages, repeats, scores, p)


def without_commit(certificate: dict) -> dict:
    return {key: value for key, value in certificate.items() if key not in OF_COMMIT}


def differing_inputs(before: dict, after: dict) -> list[str]:
    """What the recorded run was made from and the commit does not have."""
    first, second = inputs(before), inputs(after)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


def chance(recorded: float, again: float, options: argparse.Namespace) -> float | None:
    """P of a score this far away, two-sided: of one more seed (Student's t), or by a normal distribution of known deviation.

    Raises InputError for fewer than three seeds.
    """
    if options.noise:
        return math.erfc(abs(again - recorded) / (2 * options.noise))
    if not options.seeds:
        return None
    scores = [revisions.read(name).metrics["val_bpb"] for name in options.seeds]
    if len(scores) < 3 or not stdev(scores):
        raise InputError(f"--seeds: {len(scores)} runs; give at least three, of different seeds, whose scores differ")
    t = abs(again - fmean(scores)) / (stdev(scores) * math.sqrt(1 + 1 / len(scores)))
    return 2 * upper_tail(t, len(scores) - 1)


def page(outcome: Outcome, other: list[str]) -> str:
    """The table of stages, and what differs, in words."""
    rows = []
    for stage in dict.fromkeys(outcome.stages.get(path, "new") for path in outcome.verdicts):
        paths = [path for path in outcome.verdicts if outcome.stages.get(path, "new") == stage]
        same = [path for path in paths if outcome.verdicts[path] == SAME]
        sizes = sum(outcome.sizes[path] for path in same), sum(outcome.sizes[path] for path in paths)
        rows.append([stage, f"{len(same)}", f"{len(paths) - len(same)}", f"{sizes[0]:,}", f"{sizes[1] - sizes[0]:,}"])
    blocks = [table(["stage", "files equal", "different", "bytes equal", "different"], rows, range(1, 5))]
    wrong = [f"{verdict}: {path}" for path, verdict in outcome.verdicts.items() if verdict != SAME]
    blocks += ["\n".join(wrong)] if wrong else []
    if other:
        more = f" and {len(other) - SHOWN} more" if len(other) > SHOWN else ""
        blocks.append(f"The recorded run was made from other inputs than the commit has: {', '.join(other[:SHOWN])}{more}.")
    recorded, again = outcome.scores
    blocks.append(
        f"val_bpb {recorded:.6f} recorded, {again:.6f} replayed" + ("" if outcome.p is None else f", p = {outcome.p:.2g}")
    )
    if not outcome.same_bytes and not outcome.repeats and outcome.p is None:
        blocks.append("Bytes do not repeat on this device; give --seeds or --noise to compare the score.")
    return "\n\n".join([*blocks, f"replay: {outcome.verdict}"])


def write(outcome: Outcome, facts: dict) -> None:
    """reports/replay.json."""
    wrong = [path for path, verdict in outcome.verdicts.items() if verdict != SAME]
    content = {
        "verdict": outcome.verdict,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        **facts,
        "files_equal": len(outcome.verdicts) - len(wrong),
        "files_different": wrong,
        "bytes_equal": sum(outcome.sizes[path] for path in outcome.verdicts if path not in wrong),
        "val_bpb_recorded": outcome.scores[0],
        "val_bpb_replayed": outcome.scores[1],
        "p": outcome.p,
    }
    with replacing(RECORD) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: replay: `{' '.join(map(str, error.cmd))}` failed")
    except KeyboardInterrupt:
        sys.exit("interrupted")
