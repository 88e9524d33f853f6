"""Stages and commands run from a warm process, as `python -m` would run them.

Importing torch takes longer than a trial. So a process that has imported what the stages import, on one thread, is forked
for each (multiprocessing's fork server), and the child runs the script as `__main__`. One thing is remembered: half a
minute of `certify` is coding and decoding a text in fresh processes; the same text with the same submission ends alike.
"""

import functools
import hashlib
import multiprocessing
import os
import pickle
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from bench.faults.pipeline import ROOT

LIMIT = 120  # seconds
STOPPED = "stopped training"  # a command of the trials' own
STOPPED_AT = 15  # step
SHARED = ("stages/common.py", "stages/launch.py", "stages/validation.py")  # what stages import of each other
COMMANDS = (
    "fairway/submission/command_line.py",
    "fairway/report/compare.py",
    "fairway/report/submission.py",
    "fairway/presets.py",
)


class Ended(NamedTuple):
    """How a reader ended."""

    status: int | None  # None: not within LIMIT
    out: str
    err: str


def plainly(folder: Path, command: str) -> Ended:
    """`python command` in a folder, as a user runs it."""
    words = [sys.executable, *command.split()]
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def forked(folder: Path, command: str, desk: Path) -> Ended:
    """The same from the warm process; what it says, and what is remembered, lies on the desk."""
    desk.mkdir(exist_ok=True)
    process = server().Process(target=act, args=(folder, command, desk))
    process.start()
    process.join(LIMIT)
    status = process.exitcode
    if status is None:
        process.kill()
    return Ended(status, *((desk / name).read_text(encoding="utf-8", errors="replace") for name in ("out", "err")))


@functools.cache
def server() -> multiprocessing.context.BaseContext:
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    code = {dep for stage in stages for dep in stage["deps"] if dep.startswith("fairway/")}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([path[: -len(".py")].replace("/", ".") for path in sorted({*code, *SHARED, *COMMANDS})])
    return context


def act(folder: Path, command: str, desk: Path) -> None:
    """The child's part: run the command in the folder, and end as it ends."""
    for stream, name in enumerate(("out", "err"), 1):
        os.dup2(os.open(desk / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    remember_round_trips(desk)
    first, *sys.argv[1:] = command.split()
    if command == STOPPED:
        stop_training()
    elif first == "-m":
        module = sys.argv.pop(1)
        sys.modules.pop(module, None)  # that another one has imported
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    else:
        from fairway.submission import command_line

        sys.argv[0] = first
        sys.exit(command_line.main(sys.argv[1:]))


def stop_training() -> None:
    """Ctrl-C in the middle of a step."""
    from fairway.train import fit
    from stages import common, train

    step = fit.train_step

    def interrupted(state, *arguments):
        if state.step == STOPPED_AT:
            signal.raise_signal(signal.SIGINT)
        return step(state, *arguments)

    fit.train_step = interrupted
    common.run(train.main)


def remember_round_trips(desk: Path) -> None:
    from fairway.proof import round_trip

    round_trip.run = remembered(round_trip.run, desk)


def remembered(function: Callable, desk: Path) -> Callable:
    """The same function, which looks into files on the desk first."""

    def look(*arguments: object):
        path = desk / hashlib.sha256(repr(arguments).encode()).hexdigest()
        if not path.exists():
            path.write_bytes(pickle.dumps(function(*arguments)))
        return pickle.loads(path.read_bytes())

    return look
