"""Classical compressors primed with the whole training text, against the default run: bits per byte of the val text.

A compressor is primed by compressing train + val and subtracting what train alone costs. PPMd of order 16 is the one to
beat; it is also primed with train and holdout, because our network learns from the holdout split before quantisation.
Run after `dvc repro`: python -m bench.classical
"""

import json
import lzma
from pathlib import Path

import pyppmd
import zstandard

from fairway.params import load
from fairway.text.config import Data, Tokenize
from fairway.text.documents import read_documents
from fairway.text.split import digest, split_of

PPMD_ORDER, PPMD_MEMORY = 16, 1 << 30


def ppmd(text: bytes) -> int:
    encoder = pyppmd.Ppmd7Encoder(PPMD_ORDER, PPMD_MEMORY)
    return len(encoder.encode(text)) + len(encoder.flush())


def xz(text: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    return len(lzma.compress(text, lzma.FORMAT_XZ, filters=filters))


def zstd(text: bytes) -> int:
    params = zstandard.ZstdCompressionParameters.from_level(22, window_log=26, enable_ldm=True)
    return len(zstandard.ZstdCompressor(compression_params=params).compress(text))


def primed_bpb(compressor, prime: bytes, text: bytes) -> float:
    return 8 * (compressor(prime + text) - compressor(prime)) / len(text)


def main() -> None:
    data, split = load("params.yaml", "data", Data), load("params.yaml", "tokenize", Tokenize)
    texts = {"train": [], "holdout": [], "val": [], "witness": []}
    seen = set()
    for document in read_documents(data.documents, data.text_field):
        content = document.encode()
        if (identity := digest(content)) not in seen:
            seen.add(identity)
            texts[split_of(identity, split.holdout_fraction, split.val_fraction, split.witness_fraction)].append(content)
    train, holdout, val = (b"".join(texts[name]) for name in ("train", "holdout", "val"))
    summary = json.loads(Path("reports/summary.json").read_text())
    rows = {
        "xz -9e, primed with train": primed_bpb(xz, train, val),
        "zstd -22 (long), primed with train": primed_bpb(zstd, train, val),
        "PPMd order 16, primed with train": primed_bpb(ppmd, train, val),
        "PPMd order 16, primed with train and holdout": primed_bpb(ppmd, train + holdout, val),
        f"fairway, artifact of {summary['artifact_bytes']:,} bytes": summary["val_bpb"],
    }
    print(f"val text: {len(val):,} bytes\n\n| predictor | bpb |\n|---|---:|")
    for name, bpb in rows.items():
        print(f"| {name} | {bpb:.4f} |")
    best = rows["PPMd order 16, primed with train and holdout"]
    print(f"\nfigure ppmd_bpb = {best:.4f}\nfigure fairway_bpb = {summary['val_bpb']:.4f}")
    print(f"figure artifact_bytes = {summary['artifact_bytes']}\nfigure ratio_to_ppmd = {summary['val_bpb'] / best:.4f}")


if __name__ == "__main__":
    main()
