"""What 62 M tokens would cost an n-gram mixture: seconds and gigabytes, from 10 M tokens that do not repeat.

There are not so many in the default corpus: after its training split come copies of it in which tokens are exchanged, so
many that new n-grams go on coming at the rate of the real text (Heaps' law, fitted to it). What a network would say is
random, for the speed does not depend on it. Seconds are of the CPU. Part of bench/ngram.py.
"""

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fairway.mixture import context_table
from fairway.mixture.config import Ngram
from fairway.mixture.estimators import NODE
from fairway.mixture.features import Features, feature_type
from fairway.mixture.ngram_table import empty_table
from fairway.mixture.protocol import Mixture
from fairway.mixture.token_mixture import TokenMixture
from fairway.mixture.tree import depth
from fairway.mixture.tree_mixture import TreeMixture

EXCHANGED = 0.2  # of the tokens of a copy
ENTRIES = 100_000_000  # `ngram.table_entries` of params.yaml
PIECE = 1 << 18  # tokens whose features is held at a time


class Planned(NamedTuple):
    """A mixture that has not seen anything, and the table that it fills."""

    noun: str  # what the table holds
    mixture: Mixture
    held: Callable[[], tuple[int, float]]  # how many, and the bytes of one
    gigabytes: Callable[[float], tuple[float, float]]  # of so many: in use, and the most while the table grows


class Outcome(NamedTuple):
    lines: list[str]
    size: float  # bytes an n-gram or context, of those that were stored
    seconds: float  # these two of the full text
    gigabytes: float


def timed(function: Callable) -> tuple[float, object]:
    """CPU seconds, and what the function returns."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def linear(settings: Ngram, vocabulary: int) -> Planned:
    mixture = TokenMixture(settings, vocabulary)

    def held() -> tuple[int, float]:
        table = mixture.estimator.counts.table
        return int(table.used[0]), NODE.itemsize + table.index.nbytes / int(table.used[0])

    return Planned("n-gram", mixture, held, lambda count: ngram_gigabytes(count, vocabulary))


def tree(mixture: TreeMixture) -> Planned:
    def held() -> tuple[int, float]:
        return int(mixture.table.used[0]), mixture.table.entries.nbytes / int(mixture.table.used[0])

    return Planned("context", mixture, held, context_gigabytes)


def ngram_gigabytes(count: float, vocabulary: int) -> tuple[float, float]:
    """Without what is reserved and was never touched."""
    capacity = len(empty_table(NODE, vocabulary, 1 << 40).nodes)
    while capacity < count:
        capacity *= 2
    index = 4 << (capacity * 8 // 7).bit_length()
    in_use = count * NODE.itemsize + index
    return in_use / 1e9, max(in_use, capacity * NODE.itemsize + index * 1.5) / 1e9


def context_gigabytes(count: float) -> tuple[float, float]:
    """The table is two thirds full at most, and twice as large as the one that it takes the place of."""
    entries = context_table.empty().entries
    capacity = len(entries)
    while 3 * count > 2 * capacity:
        capacity *= 2
    in_use = capacity * entries.nbytes / len(entries)
    return in_use / 1e9, 1.5 * in_use / 1e9


def long_text(train: np.ndarray, tokens: int, exchanged: float = EXCHANGED) -> np.ndarray:
    """The text, and copies of it in which random tokens are put in the places of some."""
    random = np.random.default_rng(0)
    copies = [train]
    while sum(map(len, copies)) < tokens:
        other = np.where(random.random(len(train)) < exchanged, random.permutation(train), train)
        copies.append(other)
    return np.concatenate(copies)[:tokens]


def random_features(tokens: np.ndarray, vocabulary: int, random: np.random.Generator) -> Features:
    """What the tree reads, of the size that a network's would have."""
    features = np.empty(len(tokens), feature_type("tree", vocabulary))
    network = 3 * random.standard_normal((len(tokens), depth(vocabulary)), np.float32)
    features["token"], features["nats"] = tokens, random.gamma(1.0, 2.5, len(tokens))
    features["entropy"] = np.minimum(features["nats"], 6.9)
    features["paths"][..., 0] = network
    features["paths"][..., 1] = network + 0.3 * random.standard_normal(network.shape, np.float32)
    features["nearest"] = random.random(len(tokens), np.float32)
    return features


def seconds_for(mixture: Mixture, tokens: np.ndarray, vocabulary: int, random: np.random.Generator) -> float:
    """CPU seconds for the next tokens of the text."""
    spent = 0.0
    for start in range(0, len(tokens), PIECE):
        features = random_features(tokens[start : start + PIECE], vocabulary, random)
        spent += timed(lambda features=features: mixture.score(features))[0]
    return spent


def power_law(x: list[int], y: list[float]) -> tuple[float, float]:
    """a, b of y = a·x^b through the last two points."""
    b = math.log(y[-1] / y[-2]) / math.log(x[-1] / x[-2])
    return y[-1] / x[-1] ** b, b


def plan(planned: Planned, train: np.ndarray, tokens: int, full: int, vocabulary: int) -> Outcome:
    """Rows of the plan, and what is extrapolated to `full` tokens."""
    text, random, noun = long_text(train, tokens), np.random.default_rng(1), planned.noun
    marks = [len(train) // 4, len(train) // 2, len(train), tokens // 2, tokens]
    lines = [f"| tokens | {noun}s | per token | bytes each | CPU seconds | tokens/s since the row above |", "|" + "---:|" * 6]
    done, seconds, stored, spent = 0, 0.0, [], []
    for mark in marks:
        more = seconds_for(planned.mixture, text[done:mark], vocabulary, random)
        seconds += more
        count, size = planned.held()
        spent.append(seconds)
        stored.append(count)
        cells = f"{count / mark:.2f}", f"{size:.1f}", f"{seconds:.1f}", f"{(mark - done) / more:,.0f}"
        lines.append(f"| {mark:,} | {count:,} | {' | '.join(cells)} |")
        done = mark
    heaps, slope = power_law(marks[1:3], stored[1:3])
    scale, time_slope = power_law(marks[2:], spent[2:])
    final, seconds = heaps * full**slope, scale * full**time_slope
    in_use, most = planned.gigabytes(final)
    lines += [
        "",
        f"The first {len(train):,} tokens are real. In the second half {noun}s grow with the power {slope:.3f} of the tokens, "
        f"which makes {heaps * tokens**slope:,.0f} at {tokens:,} tokens; with exchanged tokens there were {stored[-1]:,}. "
        f"CPU time grows with the power {time_slope:.3f}. So {full:,} tokens make {final:,.0f} {noun}s: {seconds:.0f} s, "
        f"{in_use:.1f} GB in use, {most:.1f} GB for a moment while the table doubles. `ngram.table_entries` bounds it: "
        f"{ENTRIES:,} {noun}s take {planned.gigabytes(ENTRIES)[0]:.1f} GB.",
    ]
    return Outcome(lines, size, seconds, in_use)
