"""What every stage script shares: how it starts, fails, shows progress, and reads and writes small files.

A user's mistake ends in one sentence and exit status 1, an interruption in status 130; neither leaves a half-written
file (`fairway.files`).
"""

import ctypes
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fairway.errors import RERUN, InputError, printable, reading
from fairway.files import replacing

PARAMS = Path("params.yaml")
ARTIFACTS = Path("artifacts")
REPORTS = Path("reports")
FIRST_RANK = os.environ.get("RANK", "0") == "0"  # of the processes that share a stage, the one that prints
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; SIGTERM is treated as Ctrl-C, so that long work can save before it exits."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_freed_memory()
    try:
        if FIRST_RANK and subprocess.run([sys.executable, "-m", "fairway.sections", PARAMS], check=False).returncode:
            sys.exit(1)  # it has said which param is wrong; also those of later stages, before any work
        main()
    except InputError as error:
        sys.exit(f"error: {error}" if FIRST_RANK else 1)
    except KeyboardInterrupt:
        if FIRST_RANK:
            print("interrupted", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        sys.exit(printable(f"error: {error.filename or 'a file'}: {error.strerror or ' '.join(map(str, error.args))}"))


def say(line: str) -> None:
    """Print a line at once, on the first of several ranks alone."""
    if FIRST_RANK:
        print(line, flush=True)


def keep_freed_memory() -> None:
    """Ask glibc to reuse large freed blocks instead of returning them to the system at once.

    A training step frees and asks for the same hundred megabytes again and again; page faults took a third of its time.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def deferring_interrupts():
    """Inside the block Ctrl-C and SIGTERM only add to the list that it yields, so that a step is never half done."""
    caught: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, lambda number, frame: caught.append(number)) for kind in kinds]
    try:
        yield caught
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)


def write_bytes(path: Path | str, content: bytes | memoryview) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_array(path: Path | str, array: np.ndarray) -> None:
    """As .npy."""
    content = io.BytesIO()  # straight into a file, numpy does not say that the disk is full
    np.save(content, array)
    write_bytes(path, content.getbuffer())


def write_json(path: Path | str, content: dict) -> None:
    """Keys keep their order: metrics read from the most to the least important."""
    write_bytes(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path, keys: list[str]) -> dict:
    """A JSON object that has all of `keys`. Raises InputError."""
    with reading(path, "valid JSON", ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in keys if key not in content] if isinstance(content, dict) else keys
    if missing or not isinstance(content, dict):
        wanted = f"the key{'s' * (len(missing) > 1)} {', '.join(missing)}" if missing else "an object"
        raise InputError(f"{path}: expected {wanted}, not found; {RERUN}")
    return content


def read_timing(stage: str) -> dict[str, float | None]:
    """The seconds and rates in a stage's timing.json. Raises InputError."""
    path = REPORTS / stage / "timing.json"
    content = read_json(path, ["seconds"])
    for key, value in content.items():
        if value is not None and (type(value) not in (int, float) or not 0 <= value < math.inf):
            raise InputError(f"{path}: '{key}' is {value!r}, expected a number from 0; {RERUN}")
    return content


def write_ledger(stage: str, split: str, tokens: int) -> None:
    """The exposure ledger: which split a stage learned from, and how many of its tokens it saw."""
    exposed = tokens if split == "val" else 0
    content = {"stage": stage, "learned_from": split, "tokens": tokens, "val_tokens_before_scoring": exposed}
    write_json(ARTIFACTS / stage / "ledger.json", content)


def write_tsv(path: Path | str, rows: list[dict]) -> None:
    """Rows of equal keys as a table that DVC plots and pandas read."""
    lines = ["\t".join(rows[0])] + ["\t".join(str(value) for value in row.values()) for row in rows]
    write_bytes(path, ("\n".join(lines) + "\n").encode())


class Progress:
    """A bar on a terminal; elsewhere a line after ten seconds, twenty, forty, and then every minute."""

    def __init__(self, total: int, unit: str, label: str):
        self.total, self.unit, self.label = total, unit, label
        self.done, self.start, self.last_line = 0, time.monotonic(), time.monotonic()
        self.pause = 10.0  # seconds to the next line
        terminal = sys.stderr.isatty() and FIRST_RANK
        self.bar = tqdm(total=total, unit=unit, desc=label, unit_scale=True) if terminal else None

    def advance(self, amount: int, note: str = "") -> None:
        self.done += amount
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(amount)
        elif time.monotonic() - self.last_line >= self.pause:
            self.last_line, self.pause = time.monotonic(), min(60.0, 2 * self.pause)
            self._line(note)

    def close(self, note: str = "") -> None:
        if self.bar is not None:
            self.bar.close()
        else:
            self._line(note)

    def _line(self, note: str) -> None:
        elapsed = time.monotonic() - self.start
        rate = self.done / max(elapsed, 1e-9)
        left = (self.total - self.done) / max(rate, 1e-9)
        say(
            f"{self.label}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s, "
            f"{elapsed:.0f} s, about {left:.0f} s left{', ' + note if note else ''}"
        )
