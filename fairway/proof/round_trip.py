"""The round trip: the submission compresses a text while another process of it decompresses what has come so far.

Both run in the fence of fence.py, side by side. The decoder's folder holds the submission only; it gets the compressed text
through its standard input, in pieces of one size, and has neither the text nor anything that the encoder left behind. What it
could learn otherwise is the time at which a piece comes. A submission that fails, hangs or never stops writing raises nothing
here: the failure is what the certificate reports.
"""

import contextlib
import math
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Timer
from typing import NamedTuple

from fairway.markdown import one_line
from fairway.proof import fence, untrusted
from fairway.proof.fence import LIMITS, Limits, Process

COMMANDS = ("compress", "decompress")
PIECE = 512  # bytes that the decoder gets at once: about 1,200 tokens
MOST_CODED, SPARE = 8, 1 << 20  # bytes of compressed text: so many times the text's, and so many more
MOST_PRINTED, LINE = 16 << 20, 2000  # bytes of standard error; characters of a line that are kept
GRACE = 60.0  # seconds that a decoder has to end in after its encoder has failed
PAUSE = 15.0  # seconds between two lines of a process that are passed on


class Run(NamedTuple):
    """One process."""

    output: bytes | None  # what it wrote to standard output; None if it failed
    report: dict  # the JSON object that it printed last
    sandbox_report: dict | None  # what the fence reports; None if the process ended before it ran
    failure: str  # why it failed, "" if it did not
    seconds: float  # from its start to its end

    def number(self, name: str) -> float:
        """A finite number of the report; NaN if the report has none of that name."""
        found = untrusted.number(self.report.get(name))
        return math.nan if found is None else found


class RoundTrip(NamedTuple):
    """Both directions. If compress fails, decompress gets part of a file."""

    compress: Run
    decompress: Run

    @property
    def failure(self) -> str:
        return self.compress.failure or self.decompress.failure


def never(problem: str) -> RoundTrip:
    """Of a submission that is not even started."""
    ended = Run(None, {}, None, problem, 0.0)
    return RoundTrip(ended, ended)


def run(submission: bytes, text: bytes, limits: Limits = LIMITS, beside: bool = True) -> RoundTrip:
    """Code the text and decode it, with each process held to the limits.

    Unless they run `beside` each other, the decoder starts when the encoder has ended, so that it can measure nothing of it.
    """
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(5))  # entered first: on an error the processes end before it is left
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in COMMANDS]
        (folders[0] / "given").write_bytes(text)
        encoder = stack.enter_context(fence.start(submission, ["compress", "given", "-"], folders[0], limits))
        coded: SimpleQueue[bytes] = SimpleQueue()
        encoding = pool.submit(watched, "compress", encoder, MOST_CODED * len(text) + SPARE, coded, pool)
        if not beside and (failure := encoding.result().failure):
            return RoundTrip(encoding.result(), Run(None, {}, None, failure, 0.0))
        arguments = ["decompress", "-", "-"]
        decoder = stack.enter_context(fence.start(submission, arguments, folders[1], limits, subprocess.PIPE))
        pool.submit(feed, decoder, coded)
        decoding = pool.submit(watched, "decompress", decoder, len(text), SimpleQueue(), pool)
        compress = encoding.result()
        impatient = Timer(GRACE, decoder.kill)
        if compress.failure:
            impatient.start()
        decompress = decoding.result()
        impatient.cancel()
    return RoundTrip(compress, decompress)


def watched(name: str, process: Process, most: int, pieces: SimpleQueue, pool: ThreadPoolExecutor) -> Run:
    """Follow a process to its end. `pieces` gets its output as it comes, and b"" at the end."""
    begin = time.monotonic()
    messages: Future[list[str]] = pool.submit(follow, name, process)
    output = taken(process, most, pieces)
    lines = messages.result()
    status, seconds = process.wait(), time.monotonic() - begin
    reports = [found for line in lines if (found := untrusted.parsed(line))]
    problem = next((one_line(line) for line in reversed(lines) if line.strip()), "no message on standard error")
    failure = f"{name} failed with status {status}: {problem}" if status else ""
    if output is None:
        failure = f"{name} wrote more than {most:,} bytes"
    elif not failure and not (output and reports):
        failure = f"{name} exited with status 0 but wrote no {'report' if output else 'file'}"
    return Run(None if failure else output, reports[-1] if reports else {}, process.report(), failure, seconds)


def taken(process: Process, most: int, pieces: SimpleQueue) -> bytes | None:
    """The standard output of a process, which is ended if it is longer than `most` bytes: None."""
    content = bytearray()
    try:
        while piece := process.stdout.read(1 << 16):
            content += piece
            pieces.put(piece)
            if len(content) > most:
                process.kill()
                break
    finally:
        pieces.put(b"")
    return bytes(content) if len(content) <= most else None


def feed(process: Process, pieces: SimpleQueue) -> None:
    """Write what comes to the standard input of a process, PIECE bytes at a time however it came."""
    waiting, more = b"", True
    with contextlib.suppress(BrokenPipeError), process.stdin:
        while more:
            more = pieces.get()
            waiting += more
            ready = len(waiting) // PIECE * PIECE if more else len(waiting)
            for start in range(0, ready, PIECE):
                process.stdin.write(waiting[start : min(start + PIECE, ready)])
            waiting = waiting[ready:]


def follow(name: str, process: Process) -> list[str]:
    """The last lines of standard error. Some are passed on as they come, the last one never: it may be the report.

    A process that writes more than MOST_PRINTED bytes is ended.
    """
    lines, left, shown = [b""], MOST_PRINTED, -math.inf
    while (piece := process.stderr.read(1 << 16)) and left > 0:
        left -= len(piece)
        first, *others = piece.split(b"\n")
        lines = [*lines[:-1], lines[-1] + first[:LINE], *others]
        if others and len(lines) > 2 and time.monotonic() >= shown + PAUSE:
            shown = time.monotonic()
            print(f"{name}: {one_line(decoded(lines[-3]))}", file=sys.stderr, flush=True)
        lines = [line[:LINE] for line in lines[-9:]]
    if left <= 0:
        process.kill()
        lines.append(f"it wrote more than {MOST_PRINTED:,} bytes to standard error".encode())
    return list(map(decoded, lines))


def decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace")
