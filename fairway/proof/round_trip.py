"""The round trip: the submission compresses a text and decompresses it, each in a fresh process in the fence of fence.py.

The decoder's folder holds the submission and the compressed text only; it has neither the text nor anything that the encoder
left behind. A submission that fails raises nothing here: the failure is what the certificate reports.
"""

import math
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fairway.markdown import one_line
from fairway.proof import fence, untrusted
from fairway.proof.fence import LIMITS, Limits

MOST_PRINTED, LINE = 16 << 20, 1 << 16  # bytes of each stream, and of a line
COMMANDS = ("compress", "decompress")


class Run(NamedTuple):
    """One process."""

    output: bytes | None  # the file it was asked to write
    report: dict  # the JSON object that it printed
    sandbox_report: dict | None  # what the fence reports; None if the process ended before it ran
    failure: str  # why it failed, "" if it did not
    seconds: float

    def number(self, name: str) -> float:
        """A finite number of the report; NaN if the report has none of that name."""
        found = untrusted.number(self.report.get(name))
        return math.nan if found is None else found


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


def run_in_sandbox(submission: bytes, command: str, given: bytes, limits: Limits = LIMITS) -> Run:
    """Run `submission.pyz command given made` in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "given").write_bytes(given)
        begin = time.monotonic()
        with fence.start(submission, [command, "given", fence.MADE], Path(name), limits) as process:
            printed, last = read_streams(process)
            status, seconds = process.wait(), time.monotonic() - begin
            output, sandbox_report, report = process.made(), process.report(), read_object(printed)
    failure = f"{command} failed with status {status}: {last}" if status else ""
    if not failure and (output is None or not report):
        failure = f"{command} exited with status 0 but wrote no {'report' if output is not None else 'file'}"
    return Run(output, report, sandbox_report, failure, seconds)


def read_streams(process: fence.Process) -> tuple[str, str]:
    """Standard output, and the last line of standard error, which is also passed on line by line.

    A process that prints more than MOST_PRINTED bytes on either is ended.
    """
    with ThreadPoolExecutor(1) as pool:
        printed = pool.submit(fence.read, process.stdout, MOST_PRINTED, process.kill)
        last, left = "no message on standard error", MOST_PRINTED
        while line := process.stderr.readline(LINE):
            left -= len(line)
            if left < 0:
                process.kill()
                break
            text = line.decode("utf-8", "replace")
            print(one_line(text), file=sys.stderr, flush=True)
            last = one_line(text.strip()) or last
        return printed.result().decode("utf-8", "replace"), last


def never(problem: str) -> RoundTrip:
    """Of a submission that is not even started."""
    ended = Run(None, {}, None, problem, 0.0)
    return RoundTrip(ended, ended)


def read_object(text: str) -> dict:
    """The last line parsed as a JSON object; {} if it is none."""
    return untrusted.parsed(text.strip().splitlines()[-1]) if text.strip() else {}
