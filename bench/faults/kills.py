"""`dvc repro` and all that it has started are killed at a random moment, once or up to three times; then it is run again.

A trial starts with one stage that has never run (in some trials also all that follow it), so that the kill falls into work;
two more targets are DVC's own work: putting outputs back out of its cache, and writing dvc.lock. After each kill nothing half
done may stand in artifacts/ or reports/, and after the last one `dvc repro` ends with the bytes of the undisturbed run.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from typing import NamedTuple

import psutil

from bench.faults.pipeline import STAGES, Pipeline, Trial, differences, started

CHECKOUT, LOCK = "checkout", "dvc.lock"
BEFORE_LOCK = "eval_ngram"  # the stage after which dvc.lock is written
TARGETS = (*STAGES, "train", "train", CHECKOUT, LOCK)  # train is where the hours go
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")  # the last is what a terminal sends when it is closed
COUNTED = ("signals", "signals_to_dvc_alone", "trainings_resumed", "remedies", "tracebacks_of_interrupts")
WRITING, WRITING_SECONDS = "Updating lock file", 0.1  # what DVC says before it writes dvc.lock, and how long that takes
FOLLOW = 0.15  # of trials in which what follows has not run either
TWICE, THRICE = 0.2, 0.1  # of trials with so many kills
ENDING_SECONDS = 120  # that processes may take to end once they have been told to
RESUMED = "train: continues at step"
LEFT = re.compile(r"/\.[^/]+\.[0-9a-f]+\.partial($|/)")  # names that files have until they are whole
GROWING = {"reports/train/loss.tsv", "reports/train/metrics.json"}  # while the stage is at work; every line is whole
RUNNING = re.compile(r"Running stage '(\w+)'")


class Plan(NamedTuple):
    """A trial, as its number and the seed determine it."""

    target: str
    signals: tuple[str, ...]  # one a kill
    moments: tuple[float, ...]  # of each kill, as a fraction of the time that the target takes
    follow: bool  # whether what follows is to run, too

    @property
    def command(self) -> tuple[str, ...]:
        """What is killed: a run up to the target, where nothing more is to run."""
        target = {CHECKOUT: STAGES[-1], LOCK: BEFORE_LOCK}.get(self.target, self.target)
        return ("dvc", "repro", STAGES[-1] if self.follow else target)

    def __str__(self) -> str:
        kills = ", ".join(f"{name} at {moment:.0%}" for name, moment in zip(self.signals, self.moments, strict=True))
        return f"{self.target}{' and what follows' * self.follow}: {kills}"


def plan(seed: int, number: int) -> Plan:
    """Trial `number`, from 0; every so many trials each target comes once, in an order of the seed's."""
    order = random.Random(seed).sample(TARGETS, len(TARGETS))
    own = random.Random(f"{seed}/{number}")
    count = own.choices((1, 2, 3), (1 - TWICE - THRICE, TWICE, THRICE))[0]
    target = order[number % len(order)]
    follow = own.random() < FOLLOW and target in STAGES[:-1]
    return Plan(target, tuple(own.choice(SIGNALS) for _ in range(count)), tuple(own.random() for _ in range(count)), follow)


def kills(pipeline: Pipeline, count: int, seed: int, only: str = "") -> tuple[list[Trial], Counter]:
    """The trials kill0, kill1, … or only one of them, each told as it ends; and what was counted on the way."""
    counts, trials, seconds = Counter(dict.fromkeys(COUNTED, 0)), [], rehearsal(pipeline)
    for number in range(count):
        name = f"kill{number}"
        if only in ("", name):
            trials.append(trial(pipeline, name, plan(seed, number), seconds, counts))
            print(f"{trials[-1].what}: {trials[-1].outcome}", flush=True)
    return trials, counts


def rehearsal(pipeline: Pipeline) -> dict[str, float]:
    """Seconds of each target, DVC's start and end included. Raises RuntimeError if a run without a fault has other bytes."""
    pipeline.restore()
    pipeline.forget(STAGES)
    seconds, begin, stage = {}, time.monotonic(), ""
    with started(pipeline.place, "dvc", "repro") as process:
        for line in process.stdout:
            if found := RUNNING.search(line):
                now = time.monotonic()
                seconds[stage], begin, stage = now - begin, now, found[1]
    seconds[stage] = time.monotonic() - begin
    if found := differences(pipeline.hashes(), pipeline.clean):
        raise RuntimeError(f"two runs without a fault differ: {', '.join(found)}")
    start = seconds.pop("")
    pipeline.restore()
    ready(pipeline, CHECKOUT, False)
    begin = time.monotonic()
    pipeline.run("dvc", "repro")
    return {stage: start + duration for stage, duration in seconds.items()} | {CHECKOUT: time.monotonic() - begin}


def ready(pipeline: Pipeline, target: str, follow: bool) -> None:
    """Make the target stale, and with `follow` what comes after it."""
    if target == CHECKOUT:
        for path in pipeline.clean:
            (pipeline.folder / path).unlink()
        return
    first = STAGES.index(BEFORE_LOCK if target == LOCK else target)
    pipeline.forget(STAGES[first:] if follow else STAGES[first : first + 1])


def trial(pipeline: Pipeline, name: str, plan: Plan, seconds: dict[str, float], counts: Counter) -> Trial:
    """Kill as planned, or earlier if that is too late; run again as a user would; compare."""
    pipeline.restore()
    ready(pipeline, plan.target, plan.follow)
    notes, wrong = [], []
    for kind, moment in zip(plan.signals, plan.moments, strict=True):
        after, wait = (WRITING, moment * WRITING_SECONDS) if plan.target == LOCK else ("", moment * seconds[plan.target])
        said, victim = interrupted(pipeline, plan.command, getattr(signal, kind), wait, after)
        notes.append(f"{kind} hit {victim}" if victim else "one came too late")
        counts["signals"] += bool(victim)
        counts["signals_to_dvc_alone"] += victim == "DVC"
        counts["trainings_resumed"] += RESUMED in said
        counts["tracebacks_of_interrupts"] += "KeyboardInterrupt" in said
        wrong += half(pipeline) + ["a traceback"] * ("Traceback" in said and "KeyboardInterrupt" not in said)
    if not any("hit" in note for note in notes):
        return trial(pipeline, name, plan._replace(moments=tuple(moment / 2 for moment in plan.moments)), seconds, counts)
    ending = pipeline.again()
    counts["trainings_resumed"] += RESUMED in ending.said
    counts["remedies"] += len(ending.remedies)
    wrong += ending.wrong + differences(pipeline.hashes(), pipeline.clean)
    if (pipeline.folder / ".ckpt/train").exists():
        wrong.append(".ckpt/train is left behind")
    outcome = "; ".join([*notes, *ending.typed, *(wrong or ["the same bytes"])])
    return Trial(f"killed in {plan.target}", f"{name}: {plan}", outcome, not wrong)


def interrupted(
    pipeline: Pipeline, command: tuple[str, ...], number: signal.Signals, wait: float, after: str
) -> tuple[str, str]:
    """Start a command, and send a signal to its process group `wait` seconds after its start, or after it says `after`.

    Returns what it said, and which stage was at work, "DVC" for none, "" where all was over before.
    """
    process, lines, heard, victim = started(pipeline.place, *command), [], threading.Event(), ""

    def listen() -> None:
        for line in process.stdout:
            lines.append(line)
            if after in line:
                heard.set()
        heard.set()

    listener = threading.Thread(target=listen)
    listener.start()
    if after:
        heard.wait()
    try:
        process.wait(wait)
    except subprocess.TimeoutExpired:
        victim = at_work(process.pid)
        os.killpg(process.pid, number)
    listener.join(ENDING_SECONDS)
    if listener.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
        listener.join()
        lines.append(f"Traceback: {number.name} did not end it\n")
    process.wait()
    return "".join(lines), victim


def at_work(dvc: int) -> str:
    """The stage that a process of DVC's has started, or "DVC"."""
    commands = []
    for process in psutil.Process(dvc).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            commands += [word for word in process.cmdline() if word.startswith("stages.")]
    return commands[0] if commands else "DVC"


def half(pipeline: Pipeline) -> list[str]:
    """Files under their real names that are neither absent nor as they must be."""
    found = {path: digest for path, digest in pipeline.hashes().items() if path not in GROWING and not LEFT.search(path)}
    expected = {path: digest for path, digest in pipeline.clean.items() if path in found}
    growing = [path for path in GROWING if (pipeline.folder / path).exists()]
    cut = [path for path in growing if not (pipeline.folder / path).read_bytes().endswith(b"\n")]
    return [f"after a kill {found}" for found in [*differences(found, expected), *(f"{path} is cut off" for path in cut)]]
