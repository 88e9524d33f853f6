"""submission.pyz as a compressor of text, against xz, zstd and PPMd: bytes and seconds for the same texts in the same run.

The validation text, of the kind that the network learned, and three of other kinds that come with Python and numpy.
Fairway runs as its user runs it: a process in a folder of its own, whose start (weights decoded, kernels compiled) counts in
its seconds. A receiver needs its artifact beside the compressed text: a column adds it; the peers need nothing.
Every round trip is checked. Run after `dvc repro`: python -m bench.codec [ROOT]
"""

import _pydecimal
import argparse
import importlib.metadata
import json
import lzma
import platform
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pyppmd
import zstandard

from bench.classical import PPMD_MEMORY, PPMD_ORDER

FAIRWAY = "fairway"


class Result(NamedTuple):
    size: int  # bytes
    encode: float  # seconds
    decode: float


class Speed(NamedTuple):
    """What a submission reports of one direction."""

    tokens: int
    start: float  # seconds before the first token
    seconds: float  # after the start

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


Coder = Callable[[bytes], bytes]
PEERS: dict[str, tuple[str, Coder, Coder]] = {  # name in figures → in tables, both directions
    "xz": ("xz -9e", lambda text: lzma.compress(text, preset=9 | lzma.PRESET_EXTREME), lzma.decompress),
    "zstd": ("zstd -22", lambda text: zstandard.compress(text, 22), zstandard.decompress),
    # Variant I: a little smaller than bench/classical.py's variant H, whose decoder in pyppmd 1.3.1 spoils the val text.
    "ppmd": (
        f"PPMd, order {PPMD_ORDER}",
        lambda text: pyppmd.compress(text, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY),
        lambda coded: pyppmd.decompress(coded, max_order=PPMD_ORDER, mem_size=PPMD_MEMORY),
    ),
}


def read_texts(root: Path, size: int) -> dict[str, bytes]:
    """The first `size` bytes of each text, less where that would cut a character in two."""
    licences = [path for path in importlib.metadata.files("numpy") if path.name == "LICENSE.txt"]
    whole = {
        "val": (root / "artifacts/certify/val.txt").read_bytes(),
        "manual": "\n".join(pydoc_data.topics.topics.values()).encode(),
        "licence": max((path.read_binary() for path in licences), key=len),
        "source": Path(_pydecimal.__file__).read_bytes(),
    }
    return {name: text[:size].decode(errors="ignore").encode() for name, text in whole.items()}


def peer(name: str, text: bytes) -> Result:
    _, compress, decompress = PEERS[name]
    start = time.monotonic()
    coded = compress(text)
    encoded = time.monotonic()
    decoded = decompress(coded)
    finished = time.monotonic()
    assert decoded == text, f"{name} gives another text back"
    return Result(len(coded), encoded - start, finished - encoded)


def ours(submission: bytes, text: bytes) -> tuple[Result, Speed, Speed]:
    """And what the two processes say of their speed: compressing, decompressing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "submission.pyz").write_bytes(submission)
        (folder / "text").write_bytes(text)
        encode, encoding = run_in_sandbox(folder, "compress", "text", "coded")
        decode, decoding = run_in_sandbox(folder, "decompress", "coded", "back")
        assert (folder / "back").read_bytes() == text, "submission.pyz gives another text back"
        return Result((folder / "coded").stat().st_size, encode, decode), encoding, decoding


def run_in_sandbox(folder: Path, *arguments: str) -> tuple[float, Speed]:
    """Seconds of the process, from start to end, and its own report."""
    start = time.monotonic()
    command = [sys.executable, "-I", "submission.pyz", *arguments]
    finished = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=True)
    seconds = time.monotonic() - start
    report = json.loads(finished.stdout)
    return seconds, Speed(report["tokens"], report["start_seconds"], report["seconds"])


def print_table(name: str, text: bytes, artifact_bytes: int, rows: dict[str, Result]) -> None:
    print(f"\n## {name}: {len(text):,} bytes\n")
    print(
        "| coder | bytes | bits per byte | with the artifact | to fairway "
        "| compress s | decompress s | bytes/s | back bytes/s |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for key, (size, encode, decode) in rows.items():
        title, beside = (FAIRWAY, artifact_bytes) if key == FAIRWAY else (PEERS[key][0], 0)
        ratio = size / rows[FAIRWAY].size
        print(
            f"| {title} | {size:,} | {8 * size / len(text):.4f} | {size + beside:,} | {ratio:.4f} "
            f"| {encode:.2f} | {decode:.2f} | {len(text) / encode:,.0f} | {len(text) / decode:,.0f} |"
        )


def print_speeds(encoding: Speed, decoding: Speed) -> None:
    for direction, speed in {"compressing": encoding, "decompressing": decoding}.items():
        rate = f"{speed.tokens_per_second:,.0f} tokens/s"
        print(f"\nFairway {direction}: {speed.start:.1f} s to start, then {speed.tokens:,} tokens at {rate}.")


def main() -> None:
    parser = argparse.ArgumentParser(description="The submission as a text compressor against xz, zstd and PPMd.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="a repository after `dvc repro`; default: here")
    parser.add_argument("--bytes", type=int, default=200_000, help="of each text, from its beginning")
    arguments = parser.parse_args()
    submission = (arguments.root / "artifacts/certify/submission.pyz").read_bytes()
    print(f"Python {platform.python_version()}, submission.pyz of {len(submission):,} bytes")

    figures, speeds = [], {}
    for name, text in read_texts(arguments.root, arguments.bytes).items():
        result, *speeds[name] = ours(submission, text)
        rows = {FAIRWAY: result} | {key: peer(key, text) for key in PEERS}
        print_table(name, text, len(submission), rows)
        print_speeds(*speeds[name])
        figures.append(f"figure codec.{name}_bpb = {8 * result.size / len(text):.4f}")
        figures += [f"figure codec.{name}_to_{key} = {result.size / rows[key].size:.4f}" for key in PEERS]
    for direction, speed in zip(("encode", "decode"), speeds["val"], strict=True):
        figures.append(f"figure codec.{direction}_tokens_per_second = {speed.tokens_per_second:.0f}")
        figures.append(f"figure codec.{direction}_start_seconds = {speed.start:.1f}")
    print("\n" + "\n".join(figures))


if __name__ == "__main__":
    main()
