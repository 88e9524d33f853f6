"""Kinds of score-first test-time training: bits per byte gained over the frozen network, and the seconds they take.

Each kind has its learning rate tuned on holdout text, with the checkpoint of `train`, which has not learned from that
split; then it runs on the val stream with the network of model.fwy. Kinds that go over the text several times see only
its beginning; beside each gain stands that of Muon, once over every chunk, on the same tokens. Seconds are processor
time of one thread, which neighbours disturb least. Finished runs are kept in bench/results/ttt.jsonl:
an interrupted table goes on where it was. Run after `dvc repro`: python -m bench.ttt
"""

import dataclasses
import itertools
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

from fairway.codec.network import model_from
from fairway.lm import checkpoint
from fairway.lm.model import GPT, StreamState
from fairway.score.config import Ttt
from fairway.score.ttt import TestTimeTraining
from fairway.text.byte_count import table_bytes
from fairway.text.shards import read_split
from fairway.text.tokenizer import Tokenizer
from stages.common import ARTIFACTS, keep_freed_memory

RESULTS = Path(__file__).parent / "results"
CONTEXT = BLOCK = 256
PART = 1000  # tokens; scores are kept as sums over so many
PLAIN = Ttt(optimizer="adamw", chunk_tokens=2048, lr=0.0, momentum=0.9, gradient_clip=1.0)
RATES = [1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
BY_DOCUMENT = {"reset": "document", "chunk_tokens": 256}
KINDS = {  # what is set otherwise than in PLAIN, and the rate to begin with
    "AdamW": ({}, 3e-4),
    "SGD": ({"optimizer": "sgd"}, 3e-3),
    "Muon": ({"optimizer": "muon", "momentum": 0.0}, 3e-4),
    "LoRA by document": (BY_DOCUMENT | {"parameters": "lora"}, 1e-3),
    "AdamW by document": (BY_DOCUMENT, 1e-4),
}
EPOCHS = {1: (24000, 10**9), 3: (8000, 30000), 10: (0, 10000)}  # tokens of holdout, tokens of val
LEFT_OUT = [("LoRA by document", 10), ("AdamW by document", 3), ("AdamW by document", 10)]
VARIANTS = {  # each with the rate of its kind and epochs
    "Muon, feed-forward only (as #861)": ("Muon", {"parameters": "feed_forward"}),
    "Muon, 3 of 6 blocks frozen": ("Muon", {"freeze_blocks": 3}),
    "Muon, first block at 0.3 of the rate": ("Muon", {"first_block": 0.3}),
    "Muon, chunks of 512": ("Muon", {"chunk_tokens": 512}),
    "Muon, chunks of 1,024": ("Muon", {"chunk_tokens": 1024}),
    "Muon, chunks of 4,096": ("Muon", {"chunk_tokens": 4096}),
    "Muon, cosine": ("Muon", {"schedule": "cosine"}),
    "Muon, 2 to 4 epochs by loss (#999)": ("Muon", {"epochs": 3, "adaptive_epochs": True}),
    "Muon by document, chunks of 512": ("Muon", {"reset": "document", "chunk_tokens": 512}),
    "LoRA by document, chunks of 128": ("LoRA by document", {"chunk_tokens": 128}),
}
VARIANT_TOKENS = 30000
ON_ALL = ("Muon, chunks of 512", "Muon, chunks of 1,024")  # variants that see the whole of val
DEFAULT = "Muon, chunks of 512"  # of params.yaml
REFERENCE = "Muon, 1 epochs"


def scores(model: GPT, tokens: np.ndarray, settings: Ttt | None) -> np.ndarray:
    """Nats of tokens[1:], float32, learning by the settings if there are any."""
    training = TestTimeTraining(model, settings, len(tokens) - 1) if settings else None
    chunk = settings.chunk_tokens if settings else len(tokens)
    documents = np.flatnonzero(tokens == model.architecture.bos) if settings and settings.reset == "document" else []
    stream, nats, start = StreamState.start(CONTEXT), np.empty(len(tokens) - 1, np.float32), 0
    for first, last in blocks(len(tokens) - 1, chunk, documents):
        if first in documents and first:
            training.restart()
            start = first
        elif first - start == chunk:
            training.learn(tokens[start : first + 1], nats[start:first])
            start = first
        with torch.no_grad():
            logits_TV = model(torch.from_numpy(tokens[None, first:last]), stream)[0]
            targets_T = torch.from_numpy(tokens[first + 1 : last + 1])
            nats[first:last] = torch.nn.functional.cross_entropy(logits_TV, targets_T, reduction="none").numpy()
    return nats


def blocks(targets: int, chunk: int, documents: list[int]) -> list[tuple[int, int]]:
    """(first, last) targets of blocks that cross neither the end of a chunk, counted from each document, nor a document's."""
    borders = sorted({0, targets, *(start for start in documents if start < targets)})
    found = []
    for begin, end in itertools.pairwise(borders):
        for start in range(begin, end, chunk):
            stop = min(start + chunk, end)
            found += [(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)]
    return found


class Bench:
    """Two networks and their texts, and the runs so far."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.runs = {(run["split"], run["name"]): run for run in map(json.loads, lines)}
        tokenizer = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
        self.bytes = table_bytes(tokenizer).lossless_bytes
        self.tokens = {
            split: np.asarray(read_split(ARTIFACTS / "tokenize" / split, tokenizer.vocabulary_size)[:]).astype(np.int64)
            for split in ("holdout", "val")
        }

    def network(self, split: str) -> GPT:
        if split == "val":
            return model_from((ARTIFACTS / "compress/model.fwy").read_bytes())
        architecture, state = checkpoint.load(ARTIFACTS / "train/checkpoint.safetensors")
        model = GPT(architecture).eval()
        model.load_state_dict(state)
        return model

    def run(self, split: str, name: str, settings: Ttt | None, count: int) -> dict:
        """What a run on the first `count` targets of a split has found, now or on another day."""
        tokens = self.tokens[split][: count + 1]
        known, lr = self.runs.get((split, name)), settings and settings.lr
        if known and (known["tokens"], known["lr"]) == (len(tokens) - 1, lr):
            return known
        start = time.process_time()
        nats = scores(self.network(split), tokens, settings)
        seconds = time.process_time() - start
        parts = np.add.reduceat(nats.astype(np.float64), np.arange(0, len(nats), PART))
        run = {"split": split, "name": name, "tokens": len(nats), "seconds": round(seconds, 2), "lr": lr}
        run["nats"] = [round(part, 3) for part in parts.tolist()]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(run) + "\n")
        self.runs[split, name] = run
        print(f"{split}: {name}, {len(nats):,} tokens, {seconds:.0f} s", file=sys.stderr, flush=True)
        return run

    def gain(self, run: dict, first: float = 0.0, last: float = 1.0) -> float:
        """Bits per byte by which a run is better than the frozen network, from one fraction of its tokens to another."""
        frozen = self.runs[run["split"], "frozen"]
        chosen = slice(round(first * len(run["nats"])), round(last * len(run["nats"])))
        begin, end = (min(part * PART, run["tokens"]) for part in (chosen.start, chosen.stop))
        difference = sum(frozen["nats"][chosen]) - sum(run["nats"][chosen])
        return difference / math.log(2) / int(self.bytes[self.tokens[run["split"]][begin + 1 : end + 1]].sum())

    def tuned(self, kind: str, epochs: int) -> Ttt:
        """A kind at its best rate of the ladder on holdout: from a first guess down, then up, as long as it gets better.

        With three epochs only down from the rate of one; with ten, which cost too much to try, the rate below that of three.
        """
        changes, first = KINDS[kind]
        settings = dataclasses.replace(PLAIN, **changes, epochs=epochs)
        self.run("holdout", "frozen", None, EPOCHS[1][0])

        def at(place: int) -> Ttt:
            return dataclasses.replace(settings, lr=RATES[place])

        def value(place: int) -> float:
            name = f"{kind}, {epochs} epochs, rate {RATES[place]:g}"
            return self.gain(self.run("holdout", name, at(place), EPOCHS[epochs][0]))

        place = RATES.index(first if epochs == 1 else self.tuned(kind, {3: 1, 10: 3}[epochs]).lr)
        if epochs == 10:
            return at(place - 1)
        for way in (-1, 1) if epochs == 1 else (-1,):
            while 0 <= place + way < len(RATES) and value(place + way) > value(place):
                place += way
        return at(place)


PREFACE = f"""# Kinds of test-time training

Bits per byte gained over the frozen network on the default run's val stream, 1 thread; `python -m bench.ttt` printed this.
Unless stated otherwise: all weights, chunks of 2,048, constant rate, never reset. **By document**: chunks of 256, weights or
adapters reset at each BOS. **Rate**: the best on {EPOCHS[1][0]:,} tokens of holdout text
(3 epochs: on {EPOCHS[3][0]:,}, which are few; 10 epochs: the next lower rate). **Tokens**: from the start of val; a gain on
few tokens is that of two or three documents, so compare it with **of Muon once**, the gain of Muon on the same tokens.
Quarters are of these tokens.

The default is **{DEFAULT}**: it gains most, and chunks of 1,024 and of 2,048 tokens, which are cheaper, gain less.
"""
HEAD = [
    "| kind | epochs | rate | tokens | gain | of Muon once | first quarter | last quarter | s per 100,000 tokens |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
]


def row(bench: Bench, name: str, epochs: str, run: dict) -> str:
    """Of the table; the gain of the reference is on the same tokens."""
    reference = bench.runs["val", REFERENCE]
    same = reference | {"nats": reference["nats"][: len(run["nats"])], "tokens": run["tokens"]}
    gains = (bench.gain(run), bench.gain(same), bench.gain(run, 0, 0.25), bench.gain(run, 0.75, 1))
    cells = [name, epochs, f"{run['lr']:g}", f"{run['tokens']:,}", *(f"{gain:.4f}" for gain in gains)]
    return "| " + " | ".join([*cells, f"{run['seconds'] * 1e5 / run['tokens']:.0f}"]) + " |"


def main() -> None:
    keep_freed_memory()
    torch.set_num_threads(1)
    bench = Bench(RESULTS / "ttt.jsonl")
    whole = len(bench.tokens["val"]) - 1
    frozen = bench.run("val", "frozen", None, whole)
    kinds = {}
    for epochs, (_, tokens) in EPOCHS.items():
        for kind in KINDS:
            if (kind, epochs) not in LEFT_OUT:
                kinds[kind, epochs] = bench.run(
                    "val", f"{kind}, {epochs} epochs", bench.tuned(kind, epochs), min(tokens, whole)
                )
    variants = {
        name: bench.run(
            "val",
            name,
            dataclasses.replace(bench.tuned(kind, changes.get("epochs", 1)), **changes),
            whole if name in ON_ALL else VARIANT_TOKENS,
        )
        for name, (kind, changes) in VARIANTS.items()
    }
    lines = HEAD + [row(bench, kind, str(epochs), run) for (kind, epochs), run in kinds.items()]
    lines += [row(bench, name, "2–4" if "epochs" in name else "1", run) for name, run in variants.items()]
    bpb = sum(frozen["nats"]) / math.log(2) / int(bench.bytes[bench.tokens["val"][1:]].sum())
    print(PREFACE)
    print(f"Frozen: {bpb:.4f} bpb of {whole:,} tokens, {frozen['seconds']:.0f} s.\n")
    print("\n".join(lines), end="\n\n")
    for (kind, epochs), run in kinds.items():
        print(f"figure {kind.lower().replace(' ', '_')}_{epochs}_epochs_gain_bpb = {bench.gain(run):.4f}")
    print(f"figure default_gain_bpb = {bench.gain(variants[DEFAULT]):.4f}")
    print(f"figure frozen_bpb = {bpb:.4f}")
    best = max((run for run in [*kinds.values(), *variants.values()] if run["tokens"] == whole), key=bench.gain)
    print(f"figure best_bpb = {bpb - bench.gain(best):.4f}")


if __name__ == "__main__":
    main()
