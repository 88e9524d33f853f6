"""Judge a submission with a text of your own: `python -m fairway.judge SUBMISSION.pyz TEXT [--fresh TEXT2] [--json OUT]`.

Nothing is needed but the file: no repository, no artifacts, no word of its author. Inside the fence (fairway/proof/fence.py)
it compresses TEXT; when that process has ended, another one, which has neither the text nor anything that the first left
behind, gets the compressed file and decompresses it. What counts is the size of the compressed file. A submission may contain
the very text that it is scored on: `--fresh` takes another text of the same kind, which its author cannot have had, and
compares what the two cost.
Exit status: 0 when everything holds, 1 when something does not, 2 when nothing could be judged.
"""

import argparse
import hashlib
import json
import resource
import sys
from pathlib import Path
from typing import NamedTuple

from fairway.errors import InputError
from fairway.files import replacing
from fairway.markdown import one_line
from fairway.proof import fence, fresh, round_trip
from fairway.proof.fence import LIMITS, Limits
from fairway.proof.fresh import Comparison
from fairway.proof.round_trip import COMMANDS, RoundTrip

HOLDS, REFUSED, UNJUDGED = 0, 1, 2
SHORTEST = 0.5  # of the claimed text: a fresh text of less says little, since a model that adapts has less to learn from


class Judged(NamedTuple):
    """One text, there and back."""

    name: str
    text: bytes
    trip: RoundTrip

    @property
    def came_back(self) -> bool:
        return self.trip.decompress.output == self.text

    @property
    def bpb(self) -> float | None:
        """None where the text did not come back."""
        return 8 * len(self.trip.compress.output or b"") / bytes_of(self.text) if self.came_back else None

    @property
    def reasons(self) -> list[str]:
        """Why it is refused."""
        found = [self.trip.failure] if self.trip.failure else []
        if not found and not self.came_back:
            found.append(f"decompress wrote {difference(self.text, self.trip.decompress.output or b'')}")
        for command, run in zip(COMMANDS, self.trip, strict=True):
            found += [f"{command} tried to {what}" for what in (run.sandbox_report or {}).get("refused", [])]
        return [one_line(f"{self.name}: {reason}") for reason in dict.fromkeys(found)]


def main() -> int:
    options = arguments().parse_args()
    try:
        submission, claimed = read(options.submission, "submission"), read(options.text, "text")
        other = shortened(read(options.fresh, "fresh text"), claimed, options) if options.fresh else None
        limits = LIMITS._replace(seconds=options.seconds, memory=options.memory << 20)
        judged = [judge(submission, str(options.text), claimed, limits)]
        if other is not None and judged[0].bpb is not None:
            judged.append(judge(submission, str(options.fresh), other, limits))
        compared = comparison(judged)
        print(page(options, submission, judged, compared))
        if options.json:
            write(options.json, content(submission, judged, compared, limits))
    except (InputError, OSError) as error:
        print(f"error: {said(error)}", file=sys.stderr)
        return UNJUDGED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return UNJUDGED
    return REFUSED if reasons(judged, compared) else HOLDS


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fairway.judge",
        description="Compress and decompress a text with a submission, inside a fence, and say what it costs.",
        epilog="Exit status: 0 when everything holds, 1 when something does not, 2 when nothing could be judged.",
    )
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.pyz")
    parser.add_argument("text", type=Path, metavar="TEXT", help="the text of the claimed score; NUL separates documents")
    parser.add_argument(
        "--fresh",
        type=Path,
        metavar="TEXT2",
        help="text of the same kind that the author cannot have had, about as long or longer: does it cost the same?",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the verdict as JSON")
    parser.add_argument(
        "--seconds", type=positive, default=LIMITS.seconds, help="limit on each of the processes (default: %(default)s)"
    )
    parser.add_argument(
        "--memory",
        type=positive,
        default=LIMITS.memory >> 20,
        metavar="MIB",
        help="limit on each of them, in MiB (default: %(default)s)",
    )
    return parser


def positive(word: str) -> int:
    if not word.isdecimal() or not 0 < int(word) < 1 << 31:
        raise argparse.ArgumentTypeError(f"{word!r}: expected a whole number at least 1")
    return int(word)


def read(path: Path, what: str) -> bytes:
    """Raises InputError for a file that is empty or cannot be read."""
    try:
        found = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected the {what}") from None
    if not found.replace(b"\0", b""):
        raise InputError(f"{path}: the {what} is empty")
    return found


def said(error: Exception) -> str:
    return f"{error.filename or 'a file'}: {error.strerror}" if isinstance(error, OSError) else str(error)


def bytes_of(text: bytes) -> int:
    """The bytes that a score divides by: those of the documents, without the NUL between two."""
    return len(text) - text.count(0)


def shortened(text: bytes, claimed: bytes, options: argparse.Namespace) -> bytes:
    """The fresh text, cut to the length of the claimed one: a model that adapts pays less on a longer text. InputError if it is
    far shorter, or begins as the claimed text does."""
    if len(text) < SHORTEST * len(claimed):
        raise InputError(
            f"{options.fresh}: {len(text):,} bytes; expected at least half of the {len(claimed):,} of {options.text}"
        )
    if text[:1000] == claimed[:1000]:
        raise InputError(f"{options.fresh}: begins as {options.text} does; give a text that the author cannot have had")
    if len(text) <= len(claimed):
        return text
    end = len(claimed)
    while text[end] & 0xC0 == 0x80 and end > len(claimed) - 4:  # inside a character of UTF-8
        end -= 1
    return text[:end]


def judge(submission: bytes, name: str, text: bytes, limits: Limits) -> Judged:
    print(f"judge: {name}, {len(text):,} bytes: compressing, then decompressing", file=sys.stderr, flush=True)
    return Judged(name, text, round_trip.run(submission, text, limits, beside=False))


def difference(text: bytes, decoded: bytes) -> str:
    """Where two texts begin to differ."""
    pairs = zip(text, decoded, strict=False)
    first = next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(text), len(decoded)))
    return f"another text: it differs from byte {first:,} on ({len(decoded):,} bytes, {len(text):,} given)"


def comparison(judged: list[Judged]) -> Comparison | None:
    """Of the two texts, if both came back."""
    if len(judged) < 2 or judged[1].bpb is None:
        return None
    return fresh.compare(judged[0].text, judged[0].bpb, judged[1].text, judged[1].bpb)


def reasons(judged: list[Judged], compared: Comparison | None) -> list[str]:
    """Why the submission is refused; nothing if it is not."""
    found = [reason for one in judged for reason in one.reasons]
    if compared is not None and not compared.as_expected:
        high = compared.interval[1]
        found.append(
            f"the claimed text costs {compared.adjusted:.3f} of what the fresh one suggests, at most {high:.3f} by chance: the "
            "submission knows the claimed text, or the fresh one is of another kind"
        )
    return found


def page(options: argparse.Namespace, submission: bytes, judged: list[Judged], compared: Comparison | None) -> str:
    """The verdict in plain words."""
    lines = [f"submission {options.submission}: {len(submission):,} bytes, SHA-256 {sha256(submission)}"]
    for one in judged:
        lines += text_lines(one)
    lines.append(f"fence: {fence_of(judged)}")
    lines.append(f"peak memory of a process: {peak() / 2**20:,.0f} MiB")
    if compared is not None:
        lines += comparison_lines(compared)
    elif len(judged) == 1 and judged[0].bpb is not None:
        lines.append("not tested: whether the submission contains this text; --fresh compares it with another")
    wrong, missing = reasons(judged, compared), (judged[0].trip.compress.sandbox_report or {}).get("missing", [])
    weaker = f", but the fence lacks {', '.join(missing)}: do not trust it with a submission that may know" if missing else ""
    verdict = [f"REFUSED: {reason}" for reason in wrong] or [f"HOLDS: everything that was tested{weaker}"]
    return "\n".join([*lines, *verdict])


def comparison_lines(compared: Comparison) -> list[str]:
    (low, high), (claimed, other) = compared.interval, compared.documents
    least, level = 1 - fresh.TOLERANCE, fresh.LEVEL
    return [
        f"claimed over fresh: {compared.ratio:.4f}, with bzip2 {compared.reference:.4f}; ratio of both {compared.adjusted:.4f}",
        f"  by chance {low:.4f} to {high:.4f}, p = {level:g} on either side; refused if all of that is below {least:g}",
        f"  (by how much {claimed:,} and {other:,} documents differ, those with NUL between two)",
    ]


def text_lines(one: Judged) -> list[str]:
    lines, (compress, decompress) = [f"{one.name}: {len(one.text):,} bytes, SHA-256 {sha256(one.text)}"], one.trip
    if compress.output is not None:
        size, digest = len(compress.output), sha256(compress.output)
        lines.append(f"  compressed: {size:,} bytes, SHA-256 {digest}, {compress.seconds:,.1f} s")
    if one.bpb is not None:
        lines.append(f"  decompressed: identical, {decompress.seconds:,.1f} s")
        lines.append(f"  {one.bpb:.4f} bits per byte")
    return lines


def fence_of(judged: list[Judged]) -> str:
    """What holds and what is missing of the fence."""
    report = judged[0].trip.compress.sandbox_report
    return fence.sentence(report) if report else "the submission never started"


def peak() -> int:
    """Bytes of the largest process so far."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content(submission: bytes, judged: list[Judged], compared: Comparison | None, limits: Limits) -> dict:
    """The verdict for programs."""
    wrong = reasons(judged, compared)
    names = ("text", "fresh")
    return {
        "verdict": "refused" if wrong else "holds",
        "reasons": wrong,
        "submission": {"bytes": len(submission), "sha256": sha256(submission)},
        **{name: facts(one) for name, one in zip(names, judged, strict=False)},
        "comparison": None
        if compared is None
        else compared._asdict()
        | {"adjusted": compared.adjusted, "interval": compared.interval, "level": fresh.LEVEL, "tolerance": fresh.TOLERANCE},
        "fence": judged[0].trip.compress.sandbox_report,
        "limits": limits._asdict(),
        "peak_bytes": peak(),
    }


def facts(one: Judged) -> dict:
    compress, decompress = one.trip
    coded = compress.output
    return {
        "bytes": len(one.text),
        "sha256": sha256(one.text),
        "compressed_bytes": None if coded is None else len(coded),
        "compressed_sha256": None if coded is None else sha256(coded),
        "bpb": one.bpb,
        "compress_seconds": round(compress.seconds, 2),
        "decompress_seconds": round(decompress.seconds, 2),
        "reasons": one.reasons,
    }


def write(path: Path, found: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
