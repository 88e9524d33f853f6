"""How fast `certify` looks for text of val in text that was learned from, beside the usual script: a set of runs of 13 words.

Run after `dvc repro tokenize`: python -m bench.near_duplicates. The second val is as long as train, its words in another order:
more than LARGEST runs, so sampled, as the challenge's would be. Memory is what a search allocates at most, without the shards.
"""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fairway.proof import data_checks
from fairway.proof.near_duplicates import Learned
from fairway.text.documents import read_documents
from fairway.text.shards import read_split
from fairway.text.tokenizer import read_tokenizer

FOLDER = Path("artifacts/tokenize")
WORDS = 13


def runs_of_words(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return set(zip(*(words[start:] for start in range(WORDS)), strict=False))


def measured(function: Callable[[], float]) -> tuple[float, float, float]:
    """(result, seconds, bytes allocated at most): in two calls, because to trace allocations takes time."""
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, seconds, peak


def main() -> None:
    tokenizer = read_tokenizer(FOLDER / "tokenizer.model")
    train = read_split(FOLDER / "train", tokenizer.vocabulary_size)
    val = list(read_documents([str(FOLDER / "val_documents.jsonl.zst")], "text"))
    random = np.random.default_rng(0)
    learned = tokenizer.decode(train[:]).decode().split("\0")

    def ours(documents: list[str]) -> float:
        runs = Learned(documents)
        data_checks.read(train, tokenizer.pieces, [runs])
        copied = runs.copied()
        return copied.found.sum() / copied.runs.sum()

    def usual() -> float:
        wanted = runs_of_words(" ".join(val))
        found = {run for text in learned for run in runs_of_words(text) & wanted}
        return len(found) / len(wanted)

    scrambled = [" ".join(random.permutation(text.split())) for text in learned]
    ours(val)  # the table of letters is made once
    print("| search | found, % | seconds | train tokens/s | MB |\n|---|---:|---:|---:|---:|")
    rates = {}
    searches = {"runs of 40 letters": lambda: ours(val), "the same, val as long as train": lambda: ours(scrambled)}
    for name, function in (searches | {"a set of runs of 13 words": usual}).items():
        found, seconds, peak = measured(function)
        rates[name] = len(train) / seconds
        print(f"| {name} | {100 * found:.2f} | {seconds:.2f} | {rates[name]:,.0f} | {peak / 1e6:.0f} |", flush=True)
    first, second, peer = rates.values()
    print(f"\nratio {first / peer:.2f}\n")
    print(f"figure near_duplicates.tokens_per_second = {first:.0f}")
    print(f"figure near_duplicates.tokens_per_second_sampled = {second:.0f}")


if __name__ == "__main__":
    main()
