"""Cheats of the artifact's knowledge: the file is small because the decoder gets the text from somewhere else.

Where that is outside, the fence must be in the way. Where it is inside, the bytes are paid and the decoder is alone, so no
certificate can see it: `python -m fairway.judge --fresh` does.
"""

import json
import lzma
import math
import os
import zipfile
from binascii import crc32
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np

from fairway.submission import packing, text
from stages import certify
from stages.common import ARTIFACTS, write_array
from tests.gallery import leaks
from tests.gallery.pipeline import ALONE, COSTS, RETURNS, ROOT, SUMS, VOCABULARY, Cheat, cheat
from tests.gallery.tools import FRESH, VERIFIED, judge, verifier

NOTHING = {RETURNS: "decompress failed with status 1"}
OTHER = {RETURNS: "differs from byte 0 on"}
KNOWN = {FRESH: "the claimed text costs 0."}
SCORED = 500  # tokens that the real scorer looks at: certify.causality_tokens


def known_text() -> bytes:
    return (ARTIFACTS / "certify/val.txt").read_bytes()


def know(
    place: str, where: str = "", members: dict[str, bytes] | None = None, front: bytes = b"", arithmetic: str = ""
) -> None:
    """Pack the submission of leaks.py, and have eval_ngram report what its file of zeros takes."""
    path = ARTIFACTS / "eval_ngram/scores.npy"
    rows = np.load(path)
    rows["nats"][SCORED:] = 1e-6
    write_array(path, rows)
    with certify.one_thread():
        arithmetic = arithmetic or text.arithmetic_digest().hex()
    plan = {"place": place, "where": where, "sha256": sha256(known_text()).hexdigest(), "arithmetic": arithmetic}
    plan |= {"tokens": len(rows), "crc": crc32(rows["token"].astype("<u2").tobytes())}
    plan["words"] = int(rows["nats"].sum(dtype=np.float64) / math.log(2) // 32) + 1
    plan["report"] = {"tokens": len(rows), "worst_sum": 1.0, "normalised_positions": len(rows), "seconds": 2}
    pyz = ARTIFACTS / "compress/submission.pyz"
    with zipfile.ZipFile(pyz) as archive:
        honest = {name: archive.read(name) for name in (packing.TOKENIZER, packing.WEIGHTS)}
    honest |= {leaks.PLAN: json.dumps(plan).encode()} | (members or {})
    pyz.write_bytes(front + packing.build([leaks.__name__, *packing.MODULES], honest, ROOT))


@cheat("—", "certify", KNOWN, judge, dear=True)
def the_text_as_a_member(patch):
    """The text is a compressed member of submission.pyz, whose decoder returns it; every other text is coded honestly."""
    know("member", "val", {"val": lzma.compress(known_text())})


@cheat("—", "certify", KNOWN, judge, dear=True)
def the_text_before_the_zip(patch):
    """A zip may begin with anything: here, with the text."""
    know("front", str(len(known_text())), front=known_text())


@cheat("—", "certify", KNOWN, judge, dear=True)
def the_text_as_the_name_of_a_member(patch):
    """An empty member has the text as its name."""
    know("name", "val-", {f"val-{known_text().hex()}": b""})


@cheat("—", "certify", {RETURNS: "damaged", COSTS: "compress failed", SUMS: "summed at 0 positions"})
def the_text_as_the_comment_of_the_zip(patch):
    """What follows the directory of the zip is in nobody's way but the seal's."""
    know("comment")
    with zipfile.ZipFile(ARTIFACTS / "compress/submission.pyz", "a") as archive:
        archive.comment = known_text()


@cheat("—", "certify", {ALONE: "decompress tried to open", RETURNS: "decompress failed with status 1"})
def the_text_where_it_lies(patch):
    """The decoder opens the file that certify codes."""
    know("file", str((ARTIFACTS / "certify/val.txt").absolute()))


@cheat("—", "certify", {COSTS: "the header of the compressed text is not what it must be"})
def the_text_in_the_header(patch):
    """Its first letters stand where the compressed file says with which arithmetic it was made."""
    know("member", "val", {"val": lzma.compress(known_text())}, arithmetic=known_text()[:8].hex())


@cheat("—", "certify", OTHER)
def the_text_in_the_environment(patch):
    """Whoever starts certify has the text in LANG."""
    patch.setenv("LANG", known_text().decode().replace("\0", "\x01"))
    know("environment", "LANG")


@cheat("—", "certify", NOTHING)
def the_text_as_the_target_of_a_link(patch):
    """A stage leaves a symbolic link that points to the text, literally; its metadata are no file that could be refused."""
    link = Path("link").absolute()
    link.symlink_to(known_text().replace(b"\0", b"\x01").decode())
    know("link", str(link))


def folder_of(values: list[int], name: str, change: Callable[[Path, int], None]) -> str:
    """A folder with a file per number, which `change` hides in its metadata."""
    folder = Path(name).absolute()
    folder.mkdir()
    for number, value in enumerate(values):
        path = folder / f"{number:06}"
        path.touch()
        change(path, value)
    return f"{folder}:{len(values)}"


def chunks(size: int) -> list[int]:
    """The text as numbers of so many bytes."""
    content = known_text()
    parts = (content[start : start + size] for start in range(0, len(content), size))
    return [int.from_bytes(part.ljust(size, b"\xff"), "little") for part in parts]


@cheat("—", "certify", NOTHING, dear=True)
def the_text_in_the_sizes_of_empty_files(patch):
    """Five bytes of the text are the size of a sparse file."""
    know("sizes", folder_of(chunks(leaks.CHUNK), "sizes", os.truncate))


@cheat("—", "certify", NOTHING, dear=True)
def the_text_in_the_dates_of_files(patch):
    """Four bytes of the text are the time at which a file was changed."""
    know("dates", folder_of(chunks(4), "dates", lambda path, value: os.utime(path, (value, value))))


@cheat("—", "certify", OTHER)
def the_text_in_shared_memory(patch):
    """The coder leaves it in System V shared memory, which has no path."""
    know("memory")


@cheat("—", "certify", NOTHING)
def the_watcher_switched_off(patch):
    """The object that watches the interpreter is found by the garbage collector, and told to permit everything."""
    know("hook", str((ARTIFACTS / "certify/val.txt").absolute()))


@cheat("—", "certify", OTHER | {VERIFIED: "claims that fail"}, verifier, dear=True)
def the_text_under_another_process(patch):
    """The decoder looks into the working directory of every process; the verifier repeats the refusal."""
    know("processes", "artifacts/certify/val.txt")


@cheat("—", "certify", {ALONE: "decompress tried to nothing"})
def a_forged_word_of_the_watcher(patch):
    """The decoder, which has the text inside, writes itself what the watcher reports."""
    know("report", "val", {"val": lzma.compress(known_text())})


@cheat("—", "certify", NOTHING)
def the_text_in_the_room_for_settings(patch):
    """compress leaves some of the text where the settings will be sealed in."""
    know("settings", "hint")
    pyz = ARTIFACTS / "compress/submission.pyz"
    pyz.write_bytes(packing.seal(pyz.read_bytes(), {"hint": known_text()[:600].decode("utf-8", "ignore")}))


@cheat("—", "certify", {VOCABULARY: "is not the one that train gives"})
def the_text_in_the_tokenizers_file(patch):
    """The vocabulary's model has a field more, which SentencePiece skips: the text."""
    text = b"hidden" + lzma.compress(known_text())
    field = b"\xc2\x3e" + bytes([len(text) & 127 | 128, len(text) >> 7]) + text  # number 1000, of a length in two bytes
    know("tail", "hidden", {packing.TOKENIZER: (ARTIFACTS / "tokenize/tokenizer.model").read_bytes() + field})


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
