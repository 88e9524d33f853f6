"""Start a submission inside the fence: namespaces.py shuts it in, sandbox.py watches from within. What holds is in the report.

A process gets its own folder of files, its standard streams and nothing else that another one could have written.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from fairway.proof import namespaces, sandbox, system_calls
from fairway.proof.places import PACKAGES, places

SUBMISSION = "submission.pyz"  # in the folder
CODE = "/fence"  # the folder of sandbox.py inside
ENVIRONMENT = {"PATH": "/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
FLAGS = ("-I", "-S", "-B")  # no environment variables, no .pth or sitecustomize, no bytecode written
REPORT_BYTES = 1 << 16  # most of what a submission can say about itself; a pipe holds no more


class Limits(NamedTuple):
    """Of one process: seconds by the clock on the wall, bytes, and counts."""

    seconds: int = 6 * 3600
    memory: int = 16 << 30
    disk: int = 4 << 30  # all files in its folder
    file: int = 2 << 30  # a single file
    threads: int = 512
    files: int = 256


LIMITS = Limits()


class Process:
    """A submission that runs. `stdin`, `stdout` and `stderr` are unbuffered; whoever reads them sets limits (`read`)."""

    def __init__(self, popen: subprocess.Popen, pipes: tuple[int, int]):
        self.popen = popen
        self.stdin, self.stdout, self.stderr = popen.stdin, popen.stdout, popen.stderr
        self.pipes = pipes  # facts from the fence, and the audit hook's lines
        self.facts: dict = {}

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.wait()
        for file in (self.stdin, self.stdout, self.stderr):
            if file:
                with contextlib.suppress(BrokenPipeError):
                    file.close()

    def kill(self) -> None:
        """End it and everything that it has started."""
        self.popen.kill()

    def wait(self) -> int:
        """Its exit status; 128 and the signal if one ended it. Read its streams first, or beside."""
        status = self.popen.wait()
        if not self.facts:
            trusted, said = map(drained, self.pipes)
            self.facts = merged(trusted) | {"hook": said}
        return 128 - status if status < 0 else status

    def report(self) -> dict | None:
        """After `wait`: what holds and what is missing of the fence, what was refused, and which of our packages could be
        imported. None if the submission was never started."""
        first, *lines = self.facts["hook"] or [{}]
        if "importable" not in first:
            return None
        holds, missing = [*self.facts.get("holds", []), *first["holds"]], [*self.facts.get("missing", []), *first["missing"]]
        late = [f"run for more than {self.facts['late']:,} s"] if "late" in self.facts else []
        refused = [str(line.get("refused", line))[:500] for line in lines]
        return {"holds": holds, "missing": missing, "importable": first["importable"], "refused": refused + late}


def read(pipe: IO[bytes], most: int, too_much: Callable[[], None]) -> bytes:
    """All that comes from a pipe; after `most` bytes, call `too_much` and read no further."""
    content = bytearray()
    while piece := pipe.read(min(1 << 16, most + 1 - len(content))):
        content += piece
        if len(content) > most:
            too_much()
            break
    return bytes(content[:most])


def drained(descriptor: int) -> list[dict]:
    """The JSON objects, one a line, in a pipe whose writers have ended."""
    os.set_blocking(descriptor, False)
    with contextlib.suppress(BlockingIOError), os.fdopen(descriptor, "rb", buffering=0) as file:
        content = b""
        while len(content) < REPORT_BYTES and (piece := file.read(REPORT_BYTES)):
            content += piece
    return [parsed(line) for line in content.splitlines()]


def parsed(line: bytes) -> dict:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        content = None
    return content if isinstance(content, dict) else {"refused": f"write into the fence's report: {line[:80]!r}"}


def merged(lines: list[dict]) -> dict:
    return {name: value for line in lines for name, value in line.items()}


def sentence(report: dict) -> str:
    """What holds and what is missing, of a process's report."""
    missing = f"; missing: {', '.join(report['missing'])}" if report["missing"] else ""
    return f"{', '.join(report['holds'])}{missing}"


def start(
    submission: bytes, arguments: list[str], folder: Path, limits: Limits = LIMITS, stdin: int = subprocess.DEVNULL
) -> Process:
    """Start `submission.pyz` with these arguments. The files of `folder` are in its working directory and cannot be changed.

    What it leaves there is lost. `stdin`: a descriptor, or subprocess.PIPE.
    """
    (folder / SUBMISSION).write_bytes(submission)
    for path in folder.iterdir():
        path.chmod(0o644)  # the user inside is another one
    (facts, saying), (hook, watching) = os.pipe(), os.pipe()
    os.set_blocking(watching, False)
    words = ["3", SUBMISSION, *arguments]
    visible = places()
    code = {f"{CODE}/{Path(module.__file__).name}": module.__file__ for module in (sandbox, system_calls)}
    plan = namespaces.Plan(
        program=[visible.python, *FLAGS, f"{CODE}/{Path(sandbox.__file__).name}", "fenced", PACKAGES, *words],
        fallback=[sys.executable, *FLAGS, sandbox.__file__, "open", os.pathsep.join(visible.outside), *words],
        environment=ENVIRONMENT,
        folder=str(folder),
        binds=visible.binds | code,
        writable=visible.writable,
        texts=visible.texts,
        links=visible.links,
        emptied=visible.emptied,
        limits=limits._asdict(),
        facts=saying,
        kept=watching,
    )
    command = [sys.executable, *FLAGS, namespaces.__file__, json.dumps(plan._asdict())]
    descriptors = (saying, watching)
    pipes = {"stdin": stdin, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {name: os.environ[name] for name in namespaces.INHERITED if name in os.environ}
    popen = subprocess.Popen(command, cwd="/", env=environment, bufsize=0, pass_fds=descriptors, **pipes)
    os.close(saying)
    os.close(watching)
    return Process(popen, (facts, hook))
