"""The round trip: the submission compresses a text and decompresses it, each in a fresh process in the sandbox of sandbox.py.

The decoder's folder holds the submission and the compressed text only; it has neither the text nor anything that the encoder
left behind. A submission that fails raises nothing here: the failure is what the certificate reports.
"""

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from fairway.proof import sandbox

INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH")  # environment variables that the submission gets
COMMANDS = ("compress", "decompress")


class Run(NamedTuple):
    """One process."""

    output: bytes | None  # the file it was asked to write
    report: dict  # the JSON object that it printed
    sandbox_report: dict | None  # what sandbox.py wrote; None if the process ended before that
    failure: str  # why it failed, "" if it did not
    seconds: float

    def number(self, name: str) -> float:
        """A number of the report; NaN if the report has none of that name."""
        value = self.report.get(name)
        return float(value) if type(value) in (int, float) else math.nan


class RoundTrip(NamedTuple):
    """Both directions. If compress fails, decompress never runs: it has no output and the same failure."""

    compress: Run
    decompress: Run

    @property
    def failure(self) -> str:
        return self.compress.failure or self.decompress.failure


def run(submission: bytes, text: bytes) -> RoundTrip:
    compress = run_in_sandbox(submission, "compress", text)
    if compress.failure:
        return RoundTrip(compress, Run(None, {}, None, compress.failure, 0.0))
    return RoundTrip(compress, run_in_sandbox(submission, "decompress", compress.output))


def run_in_sandbox(submission: bytes, command: str, given: bytes) -> Run:
    """Run `submission.pyz command given made` in a folder of its own."""
    with tempfile.TemporaryDirectory() as parent:
        folder, report_path = Path(parent, "folder"), Path(parent, "sandbox.json")
        folder.mkdir()
        (folder / "submission.pyz").write_bytes(submission)
        (folder / "given").write_bytes(given)
        start = time.monotonic()
        status, printed, last = run_process([str(report_path), "submission.pyz", command, "given", "made"], folder)
        seconds = time.monotonic() - start
        report = read_object(printed)
        sandbox_report = read_object(report_path.read_text(encoding="utf-8")) if report_path.exists() else {}
        made = folder / "made"
        output = made.read_bytes() if made.is_file() and not made.is_symlink() else None
    failure = f"{command} failed with status {status}: {last}" if status else ""
    if not failure and (output is None or not report):
        failure = f"{command} exited with status 0 but wrote no {'report' if output is not None else 'file'}"
    return Run(output, report, sandbox_report or None, failure, seconds)


def run_process(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit status, standard output, and the last line of standard error, which is also passed on line by line."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    environment |= {"HOME": str(folder), "USER": "submission", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", sandbox.__file__, *arguments]
    last = deque(["no message on standard error"], maxlen=1)
    with tempfile.TemporaryFile() as out:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=folder, env=environment, text=True, errors="replace", **pipes) as process:
            for line in process.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                last.append(line.strip() or last[0])
        out.seek(0)
        return process.returncode, out.read().decode("utf-8", "replace"), last[0]


def read_object(text: str) -> dict:
    """The last line parsed as a JSON object; {} if it is none."""
    with contextlib.suppress(ValueError, IndexError):
        content = json.loads(text.strip().splitlines()[-1])
        return content if isinstance(content, dict) else {}
    return {}
