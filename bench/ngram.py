"""The n-gram mixtures on one core: tokens a second, bytes an n-gram, bits per byte; and a plan for 62 M tokens.

Speed: the validation stream of the default run over and over, 5 M tokens, with the network's probabilities as eval_ttt
recorded them. The peer is the same definition in Python's dictionaries, once as the tests have it and once with running
sums, on the first tokens. The plan: 10 M tokens that do not repeat. There are not so many in the default corpus: after its
training split come copies of it in which tokens are exchanged, so many that n-grams go on being new at the rate of the
real text (Heaps' law, fitted to it). Seconds are of the CPU. Run after `dvc repro`: python -m bench.ngram
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fairway.score.bits import bits_per_byte
from fairway.score.config import Ngram
from fairway.score.estimators import NODE
from fairway.score.evidence import Evidence
from fairway.score.files import read
from fairway.score.mixture import NgramMixture
from fairway.score.ngram import empty_table
from fairway.text.shards import read_split
from tests.score.dictionary import DictionaryCounts, DictionaryMixture

ARTIFACTS, RESULTS = Path("artifacts"), Path(__file__).parent / "results"
VOCABULARY = 1024
TOKENS, SLICE, PLAN_TOKENS, FULL = 5_000_000, 20_000, 10_000_000, 62_000_000
EXCHANGED = 0.2  # of the tokens of a copy
BEST_LINEAR = Ngram(  # tuned on the holdout split
    mixture="linear",
    estimator="kneser_ney",
    max_order=7,
    discounts=[0.3, 0.2, 0.2],
    table_entries=1 << 30,
    update_tokens=1,
    learning_rate=0.02,
    entropy_bins=3,
    neural_weight=0.95,
    tilt=0.0,
)
KINDS = {
    "linear, kneser_ney": {},
    "linear, interpolated": {"estimator": "interpolated"},
    "linear, counted every 32,768 tokens": {"update_tokens": 32768},
    "fixed, kneser_ney": {"mixture": "fixed"},
    "entropy, kneser_ney": {"mixture": "entropy"},
    "entropy, add_one (#1185)": {"mixture": "entropy", "estimator": "add_one"},
    "fixed, hashed_ratio (#885), no distribution": {"mixture": "fixed", "estimator": "hashed_ratio", "neural_weight": 0.8},
}
# A mixture under test: what makes it anew. Others with the same `score` can be measured beside these.
MIXTURES: dict[str, Callable[[], NgramMixture]] = {
    name: lambda changes=changes: NgramMixture(dataclasses.replace(BEST_LINEAR, **changes), VOCABULARY)
    for name, changes in KINDS.items()
}


class RunningSums(DictionaryCounts):
    """The dictionaries of the tests with what a sum over all successors would give kept up to date: a fairer peer."""

    def __init__(self, settings: Ngram, vocabulary: int):
        super().__init__(settings, vocabulary)
        self.sums: dict[tuple, list[float]] = {}  # context → total, sum of discounts

    def seen(self, text: list[int]) -> list[tuple]:
        found = []
        for context in self.contexts(text):
            if context not in self.sums:
                break
            found.append((self.successors[context], *self.sums[context]))
        return found

    def estimates(self, seen: list[tuple], token: int) -> list[float]:
        discounts, below, results = self.settings.discounts, 1 / self.vocabulary, []
        for followers, total, mass in seen:
            count = followers.get(token, 0)
            kept = count - discounts[min(count, 3) - 1] if count else 0
            below = (kept + mass * below) / total
            results.append(below)
        return results

    def count(self, token: int) -> None:
        contexts = self.contexts(self.text)
        before = [self.successors[context].get(token, 0) for context in contexts]
        super().count(token)
        for context, count in zip(contexts, before, strict=True):
            if self.successors[context].get(token, 0) > count:
                sums = self.sums.setdefault(context, [0, 0.0])
                sums[0] += 1
                sums[1] += ([0, *self.settings.discounts])[min(count + 1, 3)] - ([0, *self.settings.discounts])[min(count, 3)]


def recorded() -> tuple[Evidence, int]:
    """What eval_ttt recorded of the validation stream, without hints and paths; the bytes of its text."""
    rows = read(ARTIFACTS / "eval_ttt/scores.npy")
    return evidence_of(rows["token"], rows["nats"], rows["entropy"]), int(rows["bytes"].sum(dtype=np.int64))


def evidence_of(tokens: np.ndarray, nats: np.ndarray, entropy: np.ndarray) -> Evidence:
    """The rest, which the mixtures here do not look at, is zero."""
    rest = dict.fromkeys(Evidence._fields, np.zeros(len(tokens), np.uint8))
    return Evidence(**rest | {"tokens": tokens, "nats": nats, "entropy": entropy})


def repeated(evidence: Evidence, tokens: int) -> Evidence:
    return Evidence(*(np.resize(array, (tokens, *array.shape[1:])) for array in evidence))


def first(evidence: Evidence, tokens: int) -> Evidence:
    return Evidence(*(array[:tokens] for array in evidence))


def timed(function: Callable) -> tuple[float, object]:
    """CPU seconds, and what the function returns."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def kinds_table(evidence: Evidence, text_bytes: int, tokens: int) -> tuple[list[str], dict[str, float]]:
    """Rows of the table of mixtures, and each one's tokens a second."""
    network = bits_per_byte(evidence.nats, text_bytes)
    lines = ["| mixture | bpb of val | to the network | tokens/s |", "|---|---:|---:|---:|"]
    lines.append(f"| network alone | {network:.4f} | | |")
    long, rates = repeated(evidence, tokens), {}
    for name, make in MIXTURES.items():
        make().score(first(evidence, 100))  # compiles
        bpb = bits_per_byte(make().score(evidence)[0], text_bytes)
        seconds, _ = timed(lambda make=make: make().score(long))
        rates[name] = tokens / seconds
        lines.append(f"| {name} | {bpb:.4f} | {bpb - network:+.4f} | {rates[name]:,.0f} |")
    return lines, rates


def dictionary_rates(evidence: Evidence, tokens: int) -> tuple[float, float]:
    """Tokens a second of the dictionaries, as the tests have them and with running sums; they must find the same scores."""
    part = first(evidence, tokens)
    neural, entropy = np.exp(-part.nats.astype(np.float64)).tolist(), part.entropy.tolist()
    expected, rates = NgramMixture(BEST_LINEAR, VOCABULARY).score(part)[0], []
    for counts in (DictionaryCounts, RunningSums):
        peer = DictionaryMixture(BEST_LINEAR, VOCABULARY)
        peer.counts = counts(BEST_LINEAR, VOCABULARY)
        seconds, scores = timed(lambda peer=peer: list(map(peer.score, part.tokens.tolist(), neural, entropy)))
        np.testing.assert_allclose([nats for nats, _ in scores], expected, rtol=1e-5, atol=1e-6)
        rates.append(tokens / seconds)
    return rates[0], rates[1]


def gigabytes(ngrams: float) -> tuple[float, float]:
    """Of a table that holds so many: in use, without what is reserved and was never touched; and the most while it grew."""
    capacity = len(empty_table(NODE, VOCABULARY, 1 << 40).nodes)
    while capacity < ngrams:
        capacity *= 2
    index = 4 << (capacity * 8 // 7).bit_length()
    in_use = ngrams * NODE.itemsize + index
    return in_use / 1e9, max(in_use, capacity * NODE.itemsize + index * 1.5) / 1e9


def long_text(train: np.ndarray, tokens: int, exchanged: float = EXCHANGED) -> np.ndarray:
    """The text, and copies of it in which random tokens are put in the places of some."""
    random = np.random.default_rng(0)
    copies = [train]
    while sum(map(len, copies)) < tokens:
        other = np.where(random.random(len(train)) < exchanged, random.permutation(train), train)
        copies.append(other)
    return np.concatenate(copies)[:tokens]


def power_law(x: list[int], y: list[float]) -> tuple[float, float]:
    """a, b of y = a·x^b through the last two points."""
    b = math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2])
    return y[-1] / x[-1] ** b, b


def plan(train: np.ndarray, tokens: int, full: int) -> tuple[list[str], float, float]:
    """Rows of the plan; seconds and gigabytes at `full` tokens."""
    text = long_text(train, tokens)
    network = np.random.default_rng(1).gamma(1.0, 2.5, tokens)  # nats such as a network has; the speed does not depend on them
    whole = evidence_of(text, network, np.minimum(network, 6.9))
    mixture, marks = NgramMixture(BEST_LINEAR, VOCABULARY), [len(train) // 4, len(train) // 2, len(train), tokens // 2, tokens]
    lines = ["| tokens | n-grams | a token | bytes an n-gram | CPU seconds | tokens/s since the row above |", "|" + "---:|" * 6]
    done, seconds, stored, spent = 0, 0.0, [], []
    for mark in marks:
        piece = Evidence(*(array[done:mark] for array in whole))
        more, _ = timed(lambda piece=piece: mixture.score(piece))
        seconds += more
        spent.append(seconds)
        table = mixture.kind.counts.table
        stored.append(int(table.used[0]))
        size = NODE.itemsize + table.index.nbytes / stored[-1]
        rate = (mark - done) / more
        cells = (f"{mark:,}", f"{stored[-1]:,}", f"{stored[-1] / mark:.2f}", f"{size:.1f}", f"{seconds:.1f}", f"{rate:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
        done = mark
    heaps, slope = power_law(marks[1:3], stored[1:3])
    scale, time_slope = power_law(marks[2:], spent[2:])
    final = heaps * full**slope
    seconds, (in_use, most) = scale * full**time_slope, gigabytes(final)
    lines += [
        "",
        f"The first {len(train):,} tokens are real. In the second half n-grams grow with the power {slope:.3f} of the tokens, "
        f"which makes {heaps * tokens**slope:,.0f} at {tokens:,} tokens; with exchanged tokens there were {stored[-1]:,}. "
        f"CPU time grows with the power {time_slope:.3f}. So {full:,} tokens make {final:,.0f} n-grams: {seconds:.0f} s, "
        f"{in_use:.1f} GB in use, {most:.1f} GB for a moment while the table doubles. `ngram.table_entries` bounds it.",
    ]
    return lines, seconds, in_use


def report(evidence: Evidence, text_bytes: int, train: np.ndarray, sizes: tuple[int, int, int, int]) -> str:
    tokens, part, plan_tokens, full = sizes
    kinds, rates = kinds_table(evidence, text_bytes, tokens)
    plain, running = dictionary_rates(evidence, part)
    on_slice = part / timed(lambda: MIXTURES["linear, kneser_ney"]().score(first(evidence, part)))[0]
    plan_lines, full_seconds, full_gigabytes = plan(train, plan_tokens, full)
    lines = [
        "# n-gram mixtures on one core",
        "",
        f"Orders up to {BEST_LINEAR.max_order}. bpb of the validation stream, {len(evidence.tokens):,} tokens; tokens a second "
        f"of CPU time on the same repeated to {tokens:,}. `python -m bench.ngram` printed this.",
        "",
        *kinds,
        "",
        f"Dictionaries of the same definition on the first {part:,} tokens: {plain:,.0f} tokens/s as the tests have them, "
        f"{running:,.0f} with running sums; linear on the same tokens {on_slice:,.0f}.",
        "",
        f"## A plan for {full:,} tokens",
        "",
        *plan_lines,
        "",
        f"figure linear_tokens_per_second = {rates['linear, kneser_ney']:.0f}",
        f"figure linear_to_dictionary = {on_slice / running:.1f}",
        f"figure plan_seconds = {full_seconds:.0f}",
        f"figure plan_gigabytes = {full_gigabytes:.1f}",
    ]
    return "\n".join(lines)


def main() -> None:
    evidence, text_bytes = recorded()
    train = read_split(ARTIFACTS / "tokenize/train", VOCABULARY)[:]
    text = report(evidence, text_bytes, train, (TOKENS, SLICE, PLAN_TOKENS, FULL))
    (RESULTS / "ngram.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
