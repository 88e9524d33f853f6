"""Hostile files, each read in a process of its own: no traceback, no allocation above 1 GiB, no hang, no control character.

Four kinds: `fwt`, what a submission decompresses; `fwy`, its weights; `settings`, its settings, and all of submission.pyz;
`json`, what certify reads of stages and submissions. Hypothesis draws raw damage, and files whose checksums are right and whose
content is not. The submission is real and tiny; blocks of compressed text have 64 tokens, so that no case takes a minute. The
parent imports and compiles everything once and forks; a child may map 1 GiB more than it began with, and takes 60 s at most.
Exits with 1 if a case failed; its content goes to the folder `--keep`. Run: python -m bench.fuzz [--minutes 10] [--only fwt]
"""

import argparse
import contextlib
import dataclasses
import json
import os
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import zlib
from binascii import crc32, crc_hqx
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fairway.codec import header as weights_header
from fairway.codec.container import FIXED, PART_BYTES, WHOLE_BYTES
from fairway.errors import InputError, printable
from fairway.lm.config import Architecture
from fairway.lm.model import GPT
from fairway.markdown import table
from fairway.proof import clocks, ledgers, round_trip, rules, untrusted
from fairway.submission import command_line, packing, text
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from tests.plain_settings import SETTINGS
from tests.submission.test_command_line import weights_file

ROOT = Path(__file__).resolve().parents[1]
MORE_BYTES, SECONDS, BLOCK = 1 << 30, 60, 64
TEXT = b"It was the best of times, it was the worst of times. "
FINE = ("read", "refused")
FAULTS = {signal.SIGALRM: "hang", signal.SIGKILL: "killed", signal.SIGSEGV: "crash", signal.SIGABRT: "crash"}
INTRODUCTION = """\
# Fuzz

Hostile files, each read in a process of its own that may map 1 GiB more than it began with and takes 60 seconds at most
(bench/fuzz.py). `python -m bench.fuzz` printed this. *read*: the file was taken, as one that is right or harmless; *refused*:
one sentence that a terminal prints as it stands; *failed*: a traceback, a memory error, a hang, a crash, a control character.

"""

ODD = [2**31, 2**53, 2**64, 10**12, 10**400, -1, 0, 1, 2, 1.5, 1e308, float("nan"), float("inf"), -float("inf")]
ODD += ["", "\x1b[2J\x07", "\u202e", "none", "a" * 999, [], {}, None, True, False]
SMALL = st.sampled_from(ODD) | st.integers(-9, 99) | st.floats() | st.text(max_size=9)
JUNK = st.recursive(SMALL, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3))
DEEP = st.sampled_from([b"[" * 200_000, b'{"a":' * 50_000, b"9" * 5000, b'{"seconds": 1e999}', b"\xff\xfe", b"", b"null"])


class Course(NamedTuple):
    """A submission that is right, opened, and files of its making."""

    submission: command_line.Submission
    coded: bytes

    def member(self, name: str) -> bytes:
        return self.submission._member(name)


@st.composite
def damaged(draw, whole: bytes) -> bytes:
    """Bytes changed, inserted, removed, repeated."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(content))), draw(st.integers(0, 40))
        new = draw(st.binary(max_size=8)) if draw(st.booleans()) else content[at : at + length] * 2
        content = content[:at] + new + content[at + length :]
    return content


@st.composite
def changed(draw, content: object) -> object:
    """A JSON value in which one part is another, gone, or of another name."""
    if not (isinstance(content, dict | list) and content and draw(st.integers(0, 5))):
        return draw(JUNK)
    content = content.copy()
    key = draw(st.sampled_from(range(len(content)) if isinstance(content, list) else sorted(content)))
    match draw(st.sampled_from("vvvvdk")):
        case "d":
            del content[key]
        case "k" if isinstance(content, dict):
            content[draw(st.text(max_size=9))] = content[key]
        case _:
            content[key] = draw(changed(content[key]))
    return content


@st.composite
def compressed(draw, course: Course) -> bytes:
    """A header and blocks, most with right checksums, whatever they claim."""
    real, digest = course.coded, course.submission.digest[:8]
    artifact, maker = draw(st.just(digest) | st.binary(min_size=8, max_size=8)), text.arithmetic_digest()
    tokens = draw(st.sampled_from([len(TEXT), 1, BLOCK, 2**32 - 1]) | st.integers(0, 2**32 - 1))
    header = text.HEADER.pack(text.MAGIC, draw(st.sampled_from([text.VERSION] * 5 + [3, 255])), artifact, tokens, maker)
    content = header + struct.pack("<I", draw(st.just(crc32(header)) | st.integers(0, 2**32 - 1)))
    for _ in range(draw(st.integers(0, 3))):
        payload = draw(st.binary(max_size=64) | st.just(real[38:]) | damaged(real[38:]))
        words = draw(st.just(len(payload) // 4) | st.integers(0, 2**24 - 1))
        head = words.to_bytes(3, "little") + draw(st.just(real[32:36]) | st.binary(min_size=4, max_size=4))
        check = crc_hqx(head + payload[: 4 * words], 0xFFFF)
        content += head + struct.pack("<H", draw(st.just(check) | st.integers(0, 2**16 - 1))) + payload
    return content


@st.composite
def weights(draw, whole: bytes) -> bytes:
    """A weights file with a changed header, and records of the lengths that it tells, all with right checksums."""
    _, version, stored, _, _ = FIXED.unpack_from(whole)
    start = FIXED.size + stored
    fields, body = json.loads(zlib.decompress(whole[FIXED.size : start], -15)), whole[start:-WHOLE_BYTES]
    part = draw(st.sampled_from(["config", "config", "tensors", "lengths", ""]))
    fields = fields | {part: draw(changed(fields[part]))} if part else draw(changed(fields))
    packed = json.dumps(fields).encode()
    deflated = zlib.compress(packed, wbits=-15)
    lengths = [len(body)]
    with contextlib.suppress(ValueError):
        lengths = [length for _, length in weights_header.parse(packed).records()]
    if sum(lengths) > 1 << 20:
        lengths = []
    records = [draw(st.just(body[:length].ljust(length, b"\1")) | damaged(body[:length])) for length in lengths[:4]]
    records += [body[9:][:length].ljust(length, b"\2") for length in lengths[4:]]
    content = FIXED.pack(b"FAIRWAY\0", version, len(deflated), len(packed), digest(deflated, PART_BYTES)) + deflated
    content += b"".join(digest(record, PART_BYTES) + record for record in records)
    return content + digest(content, WHOLE_BYTES)


def digest(content: bytes, size: int) -> bytes:
    return blake2b(content, digest_size=size).digest()


@st.composite
def setting(draw) -> bytes:
    """The settings of a predictor, one section of which is not as it should be."""
    whole = {name: dataclasses.asdict(section) for name, section in vars(SETTINGS).items()}
    return json.dumps(draw(changed(whole))).encode()


def report_of(stage: str) -> dict:
    """What stages and submissions write, all in one."""
    split = {"stage": stage, "learned_from": "train", "tokens": 10, "val_tokens_before_scoring": 0}
    counted = {"bytes": 9, "blocks": 1, "worst_sum": 1.0, "normalised_positions": 1, "start_seconds": 0.5}
    return split | counted | {"seconds": 1.5, "calibration_seconds": 0.5, "encode_seconds": 1.0}


def decompressing(content: bytes, course: Course) -> str | int:
    Path("case").write_bytes(content)
    command_line.Submission = lambda path: course.submission
    return command_line.main(["decompress", "--anyway", "case", "out"])


def scoring(name: str) -> Callable[[bytes, Course], str | int]:
    """Scores a text with a submission, one member of which is the case."""

    def run(content: bytes, course: Course) -> str | int:
        class Other(command_line.Submission):
            def __init__(self, path: Path):
                vars(self).update(vars(course.submission))
                vars(self).pop("settings", None)
                if name == packing.WEIGHTS:
                    vars(self).pop("model", None)

            def _member(self, wanted: str) -> bytes:
                return content if wanted == name else super()._member(wanted)

        Path("case").write_bytes(TEXT[:24])
        command_line.Submission = Other
        return command_line.main(["info"]) or command_line.main(["score", "case"])

    return run


def opening(content: bytes, course: Course) -> str | int:
    try:
        packing.seal(content, {})
        packing.members(content)
    except InputError as error:
        return f"error: {error}"
    return 0


def believing(content: bytes, course: Course) -> str | int:
    """All that certify makes of a ledger, of clocks and of a submission's report."""
    ledger = ledgers.read("train", content)
    known = clocks.read(dict.fromkeys(("train", "quant", "compress", "eval_ttt"), untrusted.parsed(content)))
    claimed = [rules.within_time(part, known, 600) for part in ("train", "eval")]
    ran = round_trip.Run(None, untrusted.parsed(content), None, "", 0.0)
    numbers = [ran.number(name) for name in report_of("train")]
    said = [claim.result for claim in claimed] + [str(number) for number in numbers]
    return f"error: {ledger}" if isinstance(ledger, str) else print(*said) or 0


class Outcome(NamedTuple):
    how: str  # of FINE, or what went wrong
    detail: str


def attempt(run: Callable[[bytes, Course], str | int], content: bytes, course: Course) -> Outcome:
    """What came of a case, in a child that has a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        if not (pid := os.fork()):
            child(run, content, course, folder, said.fileno())
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        words = said.read().decode(errors="surrogateescape")
    if os.WIFSIGNALED(status):
        return Outcome(FAULTS.get(os.WTERMSIG(status), "killed"), words[-500:])
    if "Traceback" in words or os.WEXITSTATUS(status) not in (0, 1):
        memory = "MemoryError" in words or "can't allocate memory" in words
        return Outcome("memory" if memory else "traceback", words[-1500:])
    if any(line != printable(line) for line in words.split("\n")):
        return Outcome("control character", words)
    return Outcome(FINE[os.WEXITSTATUS(status)], words)


def child(run: Callable, content: bytes, course: Course, folder: str, said: int) -> None:
    """Never returns."""
    status = 2
    try:
        os.chdir(folder)
        for number in (1, 2):
            os.dup2(said, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))  # where pytest has its own
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MORE_BYTES,) * 2)
        result = run(content, course)
        status = int(isinstance(result, str) or bool(result))
        print(result, flush=True)
    except BaseException:
        status = 2
        traceback.print_exc()
    finally:
        os._exit(status)


def course() -> Course:
    """Packs a tiny submission, opens it, and lets it code a text, so that everything is compiled."""
    torch.set_num_threads(1)
    text.BLOCK = BLOCK
    tokenizer = Tokenizer.from_bytes(BYTE_MODEL)
    sizes = {"layers": 2, "width": 32, "kv_heads": 2, "rope_dims": 4, "recurrence": "append", "recurrence_layers": [1]}
    a = Architecture(**sizes, vocabulary_size=tokenizer.vocabulary_size, bos=tokenizer.bos, sequence_length=16)
    model = GPT(a)
    model.initialise(0)
    members = {packing.TOKENIZER: BYTE_MODEL, packing.WEIGHTS: weights_file(model)}
    sealed = packing.seal(packing.build(packing.MODULES, members, ROOT), SETTINGS.to_json())
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(sys.stderr):
        Path("submission.pyz").write_bytes(sealed)
        Path("text").write_bytes(TEXT)
        before, sys.argv = sys.argv, ["submission.pyz"]
        submission = command_line.Submission(Path("submission.pyz"))
        command_line.Submission, whole = lambda path: submission, command_line.Submission
        try:
            for command in (["compress", "text", "coded"], ["decompress", "coded", "back"]):
                if problem := command_line.main(command):
                    raise RuntimeError(f"the submission cannot {command[0]}: {problem}")
                del vars(submission)["model"]  # which test-time training has changed
        finally:
            command_line.Submission, sys.argv = whole, before
        submission.predictor(1)  # its model and settings are decoded once, here
        return Course(submission, Path("coded").read_bytes())


def kinds(made: Course) -> dict[str, list[tuple[st.SearchStrategy[bytes], Callable]]]:
    """By kind: where cases come from, and what reads them."""
    network, sealed, report = made.member(packing.WEIGHTS), made.member(packing.SETTINGS), report_of("train")
    written = changed(report).map(lambda content: json.dumps(content).encode())
    return {
        "fwt": [(source, decompressing) for source in (damaged(made.coded), compressed(made))],
        "fwy": [(source, scoring(packing.WEIGHTS)) for source in (damaged(network), weights(network))],
        "settings": [(source, scoring(packing.SETTINGS)) for source in (damaged(sealed), setting(), DEEP)]
        + [(damaged(made.submission.content), opening)],
        "json": [(source, believing) for source in (written, damaged(json.dumps(report).encode()), DEEP)],
    }


def fuzz(kind: str, sources: list, made: Course, seconds: float, start: int, keep: Path | None) -> tuple[Counter, list[str]]:
    """Cases of one kind for so long: how many came out how, and what is to be said of those that failed."""
    counts, failures, end, batch = Counter(), [], time.monotonic() + seconds, start
    quiet = {"database": None, "deadline": None, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}

    @st.composite
    def case(draw) -> tuple[int, bytes]:
        which = draw(st.integers(0, len(sources) - 1))
        return which, draw(sources[which][0])

    def judge(drawn: tuple[int, bytes]) -> None:
        if time.monotonic() < end:
            outcome = attempt(sources[drawn[0]][1], drawn[1], made)
            counts[outcome.how] += 1
            if outcome.how not in FINE:
                name = f"{kind}-{sha256(drawn[1]).hexdigest()[:8]}"
                failures.append(f"{name} ({outcome.how}): {outcome.detail.strip()[-800:]}")
                if keep:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / name).write_bytes(drawn[1])

    while time.monotonic() < end:
        seed(batch)(settings(max_examples=50, **quiet)(given(case())(judge)))()
        batch += 1
    return counts, failures


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Read hostile files and see whether anything breaks.")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all kinds together")
    parser.add_argument("--only", choices=("fwt", "fwy", "settings", "json"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the content of cases that failed")
    parser.add_argument("--out", type=Path, help="a page to write the table to")
    options = parser.parse_args(words)
    made = course()
    chosen = {kind: sources for kind, sources in kinds(made).items() if options.only in (None, kind)}
    rows, figures, failed = [], [], 0
    for kind, sources in chosen.items():
        seconds = 60 * options.minutes / len(chosen)
        counts, failures = fuzz(kind, sources, made, seconds, options.seed, options.keep)
        print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr, flush=True)
        bad = sum(counts.values()) - sum(counts[how] for how in FINE)
        rows.append([kind, *(f"{number:,}" for number in (sum(counts.values()), *(counts[how] for how in FINE), bad))])
        figures += [f"figure fuzz.{kind}.cases = {sum(counts.values())}", f"figure fuzz.{kind}.failed = {bad}"]
        failed += bad
    page = table(["kind", "cases", *FINE, "failed"], rows, range(1, 5)) + "\n\n" + "\n".join(figures) + "\n"
    print(page, end="")
    if options.out:
        options.out.write_text(INTRODUCTION + page, encoding="utf-8")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
