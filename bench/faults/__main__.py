"""Faults done on purpose to a tiny pipeline, and whether it survives them: kills, full disks, locked folders, damaged files.

Each trial starts from the state after an undisturbed `dvc repro` (pipeline.py) and ends with another one, whose files must be
those of the undisturbed run, byte for byte. The seed and its name determine a trial, but for what else the machine does when
a signal arrives. Exits with 1 if anything was lost. `--out bench/results/faults.md` keeps the table, `--only kill7` does
one trial. Run: python -m bench.faults [--kills 30] [--corruptions 200] [--seed 0]
"""

import argparse
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

from bench.faults.disk import disk
from bench.faults.kills import kills
from bench.faults.pipeline import Trial, pipeline

INTRODUCTION = """\
# Faults

A tiny pipeline of all ten stages is killed, runs out of disk or has files damaged (bench/faults/); then `dvc repro` runs again,
as [docs/faults.md](../../docs/faults.md) says. A trial survives if no partial file is under its real name, every error is a
message in plain words, and in the end every file in `artifacts/` and `reports/` has the bytes of an undisturbed run, except for
seconds and the pages that show them. `python -m bench.faults` printed this.

"""
GROUPS = {  # a figure's name, and how the kinds of its trials begin
    "kills": "killed",
    "full_disks": "disk full",
    "locked_folders": "folder read-only",
    "two_at_once": "two at once",
    "corruptions": "damaged",
}


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told us, and so all we start, to ignore it
    trials, counts, accepted = [], Counter(), ""
    with tempfile.TemporaryDirectory() as folder:
        tiny = pipeline(Path(folder).resolve())
        if options.kills:
            trials, counts = kills(tiny, options.kills, options.seed, options.only)
            trials += disk(tiny, options.seed, options.only)
        if options.corruptions and not options.only:
            from bench.faults import files  # torch and all stages: seconds

            damaged = files.corruptions(tiny, options.corruptions, options.seed)
            trials, accepted = trials + damaged, files.accepted(damaged)
    page = table(trials) + lost(trials, options.seed) + (f"## Accepted\n\n{accepted}\n" if accepted else "")
    page += figures(trials, counts)
    print(page, end="")
    if options.out:
        options.out.write_text(INTRODUCTION + page, encoding="utf-8")
    return int(not all(trial.survived for trial in trials))


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30, help="trials of kills; 0 leaves out kills, disks and folders")
    parser.add_argument("--corruptions", type=int, default=200, help="damaged files; 0 leaves them out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="TRIAL", help="this trial of kills, disks and folders, as kill7 or disk3")
    parser.add_argument("--out", type=Path, help="a file for the table")
    return parser.parse_args(words)


def table(trials: list[Trial]) -> str:
    """A row a kind of fault, in the order in which they were done first."""
    done, survived = Counter(trial.kind for trial in trials), Counter(trial.kind for trial in trials if trial.survived)
    rows = "".join(f"| {kind} | {count} | {survived[kind]} |\n" for kind, count in done.items())
    return f"| fault | trials | survived |\n|---|---:|---:|\n{rows}\n"


def lost(trials: list[Trial], seed: int) -> str:
    """What was lost, each with what to type to see it again."""
    lines = [
        f"- {trial.kind}: {trial.what}: {trial.outcome} (`python -m bench.faults --seed {seed}{again(trial)}`)\n"
        for trial in trials
        if not trial.survived
    ]
    return f"## Lost\n\n{''.join(lines)}\n" if lines else ""


def again(trial: Trial) -> str:
    """The options that do a trial alone; files are damaged in a sequence of their own."""
    return " --kills 0" if trial.kind.startswith(GROUPS["corruptions"]) else f" --only {trial.what.split(':')[0]}"


def figures(trials: list[Trial], counts: Counter) -> str:
    values = {}
    for name, beginning in GROUPS.items():
        survived = [trial.survived for trial in trials if trial.kind.startswith(beginning)]
        values |= {name: len(survived), f"{name}_survived": sum(survived)}
    return "".join(f"figure faults.{name} = {value}\n" for name, value in (values | counts).items())


if __name__ == "__main__":
    sys.exit(main())
