"""Damaged files: whoever reads one says so in a sentence, or DVC puts the file right; nothing half is left behind.

Most trials run the reader itself on a copy of the pipeline, in a process forked from a warm one (readers.py); the first trial
of each command runs it as a plain process as well, and both must end alike. The others are `dvc repro` on the clone. Where
the format cannot show a damage, the reader accepts it: these trials are told apart, and it is DVC's hashes that see it.
"""

import contextlib
import os
import re
import shutil
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import NamedTuple

from bench.faults.damage import DAMAGES, NAMES, Damage, Pair, configure, equip, flip, pairs, plan
from bench.faults.pipeline import ROOT, Pipeline, Trial, differences, digest, environment
from bench.faults.readers import LIMIT, STOPPED, Ended, forked, plainly
from fairway.sections import SECTIONS

READ, REPEATED = "damaged file: {}", "damaged file, `dvc repro`"
SOURCES = ("params.yaml", "dvc.yaml", "dvc.lock", "data/documents.jsonl")  # that DVC cannot make again
# Outcomes of a reader, all of them good: a sentence and nothing written; what an undamaged file leads to; what another one
# leads to; a certificate that says no; and of a program that is damaged where it begins, what Python says of it.
REFUSED, HARMLESS, ACCEPTED, NOT_LEGAL, BY_PYTHON = "refused", "harmless", "accepted", "not legal", "refused by Python"
# And of `dvc repro`: the same hashes as the undisturbed run; the same ones once git has brought back what is refused.
RESTORED, REFUSED_FIRST = "restored", "refused; restored by `git checkout`"
CERTIFICATE = "artifacts/certify/certificate.json"
Tree = dict[str, str]


class Bench(NamedTuple):
    """Where readers are run: `base` is copied for every trial, the desk holds what they say."""

    folder: Path
    met: set[str]  # readers that have been run as plain processes, too
    clean: dict[str, Tree]  # by reader, what it leaves when nothing is damaged

    @property
    def base(self) -> Path:
        return self.folder / "base"

    @property
    def desk(self) -> Path:
        return self.folder / "desk"


def corruptions(pipeline: Pipeline, count: int, seed: int) -> list[Trial]:
    """`count` trials of readers, and a tenth as many of `dvc repro`; the same ones for the same seed."""
    random = Random(seed)
    with tempfile.TemporaryDirectory() as folder, as_the_course(pipeline):
        bench = Bench(Path(folder).resolve(), set(), {})
        prepare(pipeline.folder, bench)
        trials = [read(bench, pair, damage, random) for pair, damage in islice(plan(pairs(bench.base), random), count)]
    return trials + [repeated(pipeline, path, damage, random) for path, damage in outs(pipeline, -(-count // 10), random)]


def accepted(trials: list[Trial]) -> str:
    """How readers ended, and what no format shows, in Markdown."""
    outcomes = Counter(trial.outcome for trial in trials if trial.survived and trial.kind != REPEATED)
    counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    lines = "".join(f"- {trial.what}\n" for trial in trials if trial.outcome == ACCEPTED)
    return f"Of the readers of damaged files: {counts}. What no format shows, and DVC's hashes do:\n\n{lines}"


@contextlib.contextmanager
def as_the_course(pipeline: Pipeline):
    """The environment of the pipeline, with one rank."""
    before = dict(os.environ)
    os.environ.update(environment(pipeline.place) | {"NPROC": "1"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def prepare(clone: Path, bench: Bench) -> None:
    """A copy of the pipeline, its code by links, with files of every kind and a training run that was stopped."""
    bench.base.mkdir()
    for name in ("artifacts", "reports", "data"):
        shutil.copytree(clone / name, bench.base / name)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(clone / name, bench.base)
    for origin in (clone / "fairway", clone / "stages", ROOT / "presets"):
        code = shutil.copytree(origin, bench.folder / "code" / origin.name)
        (bench.base / origin.name).symlink_to(code)
    equip(bench.base)
    copy = shutil.copytree(bench.base, bench.folder / "copy", symlinks=True)
    ended = forked(copy, STOPPED, bench.desk)
    if ended.status != 130:
        raise RuntimeError(f"training was not stopped: {ended}")
    (copy / ".ckpt").rename(bench.base / ".ckpt")


def read(bench: Bench, pair: Pair, damage: Damage, random: Random) -> Trial:
    """One file damaged in a copy of its own, and its reader run there."""
    copy, twin, kind = copied(bench, pair), bench.folder / "twin", READ.format(NAMES[damage])
    what = f"`python {pair.command}`: {pair.path} {damage(copy / pair.path, random)}"
    shutil.copytree(copy, twin, symlinks=True)
    before, ended, after = tree(copy), run(bench, copy, pair), tree(copy)
    shutil.rmtree(copy)
    twin.rename(copy)
    if pair.reader not in bench.met:
        bench.met.add(pair.reader)
        plain = plainly(copy, pair.command)
        if (plain.status, plain.err) != (ended.status, ended.err):
            return Trial(kind, what, f"forked it says {ended.err!r}, plainly {plain.err!r}", False)
    expected = undamaged(bench, pair) if ended.status == 0 else {}
    return Trial(kind, what, *judged(ended, pair, before, after, expected))


def undamaged(bench: Bench, pair: Pair) -> Tree:
    """What the reader leaves where nothing is damaged."""
    if pair.reader not in bench.clean:
        copy = copied(bench, pair)
        ended = forked(copy, pair.command, bench.desk)
        if ended.status or ended.err:
            raise RuntimeError(f"python {pair.command} fails undamaged: {ended.err}")
        bench.clean[pair.reader] = tree(copy)
    return bench.clean[pair.reader]


def copied(bench: Bench, pair: Pair) -> Path:
    """A fresh copy, with the params that the pair needs."""
    copy = bench.folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bench.base, copy, symlinks=True)
    if pair.params:
        configure(copy, pair.params)
    return copy


def tree(folder: Path) -> Tree:
    """Digest of every file, but those behind links and the one with a date."""
    paths = (Path(parent, name) for parent, _, names in os.walk(folder) for name in names if name != "submission.json")
    return {(name := path.relative_to(folder).as_posix()): digest(name, path.read_bytes()) for path in sorted(paths)}


def run(bench: Bench, copy: Path, pair: Pair) -> Ended:
    """A damaged submission is no code to run in here: it gets a process of its own."""
    if pair.is_program:
        return plainly(copy, pair.command)
    return forked(copy, pair.command, bench.desk)


def judged(ended: Ended, pair: Pair, before: Tree, after: Tree, expected: Tree) -> tuple[str, bool]:
    """The outcome of a reader whose input is damaged, and whether it is a good one."""
    trees = (before, after, expected)
    before, after, expected = ({name: of for name, of in files.items() if name != pair.path} for files in trees)
    if ended.status == 0 and not ended.err:
        if not differences(after, expected):
            return HARMLESS, True
        refused = after.get(CERTIFICATE) != before.get(CERTIFICATE) and "FAILS: " in ended.out
        return NOT_LEGAL if refused else ACCEPTED, True
    if left := differences(after, before):
        return f"something is left: {'; '.join(left)}", False
    fault = unfit(ended, pair.path)
    if fault and pair.is_program and ended.status:
        return BY_PYTHON, True
    return (f"{fault}: {ended.err[-300:]!r}", False) if fault else (REFUSED, True)


def unfit(ended: Ended, path: str) -> str:
    """What is wrong with a refusal; "" for status 1 and one sentence that names the file, or the folder that lacks it."""
    if ended.status is None:
        return f"no end after {LIMIT} s"
    if "Traceback" in ended.err:
        return "a traceback"
    if ended.status != 1 or not re.fullmatch(r"error: .+\n", ended.err):
        return f"status {ended.status} and not one sentence"
    return "" if named(path, ended.err) else "the file is not named"


def named(path: str, said: str) -> bool:
    """Whether a file is named, or the folder in which it is missing, or a glob there that finds none, or its param."""
    folder, param = Path(path).parent.as_posix(), re.search(rf"error: ({'|'.join(SECTIONS)})\.\w+ ", said)
    return path in said or f"{folder}:" in said or f"'{folder}/*" in said or bool(path == "params.yaml" and param)


def outs(pipeline: Pipeline, count: int, random: Random) -> list[tuple[str, Damage]]:
    """Files for `dvc repro` to find damaged: the sources first, then outputs of all stages.

    Bits of a source are not flipped: another letter in a document is another document.
    """
    visible = [damage for damage in DAMAGES if damage is not flip]
    chosen = [(path, random.choice(visible)) for path in SOURCES]
    chosen += [(path, random.choice(DAMAGES)) for path in random.sample(sorted(pipeline.clean), len(pipeline.clean))]
    return chosen[:count]


def repeated(pipeline: Pipeline, path: str, damage: Damage, random: Random) -> Trial:
    """One file damaged in the clone itself, and `dvc repro` there."""
    what = f"{path} {damage(pipeline.folder / path, random)}"
    ended = pipeline.run("dvc", "repro")
    said = ended.stdout + ended.stderr
    outcome = RESTORED
    if ended.returncode and path in SOURCES:
        outcome = REFUSED_FIRST
        if "Traceback" in said or not named(path, said):
            return restored(pipeline, what, f"not a word on the file: {said[-300:]!r}")
        pipeline.run("rm", "-rf", path)
        pipeline.run("git", "checkout", "--", path)
        ended = pipeline.run("dvc", "repro")
    if ended.returncode:
        return restored(pipeline, what, f"`dvc repro` fails: {(ended.stdout + ended.stderr)[-300:]!r}")
    return restored(pipeline, what, "; ".join(differences(pipeline.hashes(), pipeline.clean)) or outcome)


def restored(pipeline: Pipeline, what: str, outcome: str) -> Trial:
    """A trial of `dvc repro`, after which the pipeline is as before."""
    survived = outcome in (RESTORED, REFUSED_FIRST)
    if not survived or outcome == REFUSED_FIRST:
        pipeline.restore()
    return Trial(REPEATED, what, outcome, survived)
