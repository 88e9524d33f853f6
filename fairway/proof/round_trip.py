"""The submission on trial: it codes a text and decodes it again, each in a fresh process behind the fence of sandbox.py.

The decoder's folder holds the submission and the compressed text only: not the text, nor anything the coder left behind.
Nothing that goes wrong here is an error: that a submission fails is what the certificate has to say.
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

PASSED_ON = ("PATH", "LANG", "LD_LIBRARY_PATH")  # of the environment
COMMANDS = ("compress", "decompress")


class Run(NamedTuple):
    """One process."""

    output: bytes | None  # the file it was asked for
    report: dict  # what it says of its work
    fence: dict | None  # what sandbox.py says of it; None where the process ended before it could
    failure: str  # why it failed, "" where it did not
    seconds: float

    def number(self, name: str) -> float:
        """A number of the report; NaN where it has none of that name."""
        value = self.report.get(name)
        return float(value) if type(value) in (int, float) else math.nan


class RoundTrip(NamedTuple):
    """Both directions. What never ran has no output and fails for the reason of what came before."""

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
    with tempfile.TemporaryDirectory() as place:
        folder, papers = Path(place, "folder"), Path(place, "fence.json")
        folder.mkdir()
        (folder / "submission.pyz").write_bytes(submission)
        (folder / "given").write_bytes(given)
        start = time.monotonic()
        status, said, last = spoken([str(papers), "submission.pyz", command, "given", "made"], folder)
        seconds = time.monotonic() - start
        report, fence = read_object(said), read_object(papers.read_text(encoding="utf-8")) if papers.exists() else {}
        made = folder / "made"
        output = made.read_bytes() if made.is_file() and not made.is_symlink() else None
    failure = f"{command} failed with status {status}: {last}" if status else ""
    if not failure and (output is None or not report):
        failure = f"{command} ended well, but wrote no {'report' if output is not None else 'file'}"
    return Run(output, report, fence or None, failure, seconds)


def spoken(arguments: list[str], folder: Path) -> tuple[int, str, str]:
    """Exit status, standard output, and the last line on standard error, all of which is passed on."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment |= {"HOME": str(folder), "USER": "submission", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", sandbox.__file__, *arguments]
    last = deque(["it said nothing"], maxlen=1)
    with tempfile.TemporaryFile() as out:
        streams = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, cwd=folder, env=environment, text=True, errors="replace", **streams) as process:
            for line in process.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                last.append(line.strip() or last[0])
        out.seek(0)
        return process.returncode, out.read().decode("utf-8", "replace"), last[0]


def read_object(text: str) -> dict:
    """The last line as a JSON object; empty where it is none."""
    with contextlib.suppress(ValueError, IndexError):
        content = json.loads(text.strip().splitlines()[-1])
        return content if isinstance(content, dict) else {}
    return {}
