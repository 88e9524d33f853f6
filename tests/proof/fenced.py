"""A program of a few lines as a submission that runs in the fence, and the same program as a plain process."""

import io
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fairway.proof import fence, namespaces
from fairway.proof.fence import LIMITS, Limits, Process

MOST = 1 << 20  # bytes that a program may print


class Ended(NamedTuple):
    status: int
    out: str
    errors: str
    report: dict | None


def application(program: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("__main__.py", program)
    return stream.getvalue()


def started(folder: Path, program: str, limits: Limits = LIMITS, **more) -> Process:
    """In `folder`, which is made, and has a file `given`."""
    folder.mkdir()
    (folder / "given").write_bytes(b"a text")
    return fence.start(application(program), ["compress", "given", "-"], folder, limits, **more)


def ended(process: Process) -> Ended:
    with ThreadPoolExecutor(2) as pool:
        streams = [pool.submit(fence.read, pipe, MOST, process.kill) for pipe in (process.stdout, process.stderr)]
        out, errors = (stream.result().decode(errors="replace") for stream in streams)
    return Ended(process.wait(), out, errors, process.report())


def run(folder: Path, program: str, limits: Limits = LIMITS) -> Ended:
    with started(folder, program, limits) as process:
        return ended(process)


def plain(program: str) -> subprocess.Popen:
    """Outside the fence; standard output is a pipe."""
    command = [sys.executable, "-I", "-c", program]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.PIPE, text=True)


def namespaces_missing(folder: Path) -> str:
    """Why this system permits no namespaces, "" if it does."""
    report = run(folder, "").report
    return next((line for line in report["missing"] if line.startswith(namespaces.NAMES)), "")
