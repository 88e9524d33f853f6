"""What the text so far says about the next token: columns of estimates, and an order (weights.py puts them to use).

Of n-grams, column k is order k + 1's distribution over the vocabulary, and the order is the longest whose context was seen
before. `interpolated`: P_n(t) = (c − d(c) + P_{n−1}(t) Σ d) / total with discounts d of counts 1, 2 and more (Chen & Goodman
1998); P_0 is uniform. `kneser_ney`: the same, but an n-gram counts once for each different token that it has been seen after,
except in the highest order. `add_one` (#1185): (c + 1) / (total + V). These sum to one whatever the counts are; the published
`hashed_ratio` (#885) does not (hashed_counts.py).
"""

from typing import NamedTuple, Protocol

import numpy as np

from fairway.kernels import njit
from fairway.mixture.config import Ngram
from fairway.mixture.features import Features
from fairway.mixture.hashed_counts import HashedCounts
from fairway.mixture.match import MatchModel
from fairway.mixture.ngram_table import Cursor, add_longer, advance, empty_table, find, grown, start_of_text

# total: the counts of all successors; ones, twos, more: how many of them have been counted once, twice, more often
NODE = np.dtype(
    [("parent", "u4"), ("count", "u4"), ("total", "u4"), ("token", "u2"), ("ones", "u2"), ("twos", "u2"), ("more", "u2")]
)


class Estimator(Protocol):
    """The estimator after some prefix of a text."""

    def of_targets(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        """Estimates of each target, float64 (N, columns), and the orders, int64 (N,); each target is then observed."""

    def of_all_tokens(self, neural: np.ndarray) -> tuple[np.ndarray, int]:
        """Estimates of all tokens in the next position, (V, columns), and its order. `neural` (V,) is what the network says."""

    def observe(self, token: int) -> None:
        """The next token is known."""


def estimator_of(settings: Ngram, vocabulary_size: int) -> Estimator:
    """The estimator that `ngram.mixture` and `ngram.estimator` name."""
    if settings.mixture == "none":
        return NoEstimator()
    if settings.mixture == "tilt":
        return MatchModel(vocabulary_size)
    counts = HashedCounts if settings.estimator == "hashed_ratio" else Counts
    return NgramEstimator(counts(settings, vocabulary_size), settings.update_tokens)


class NoEstimator:
    """Its order is always 0."""

    def of_targets(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(features), 1)), np.zeros(len(features), np.int64)

    def of_all_tokens(self, neural: np.ndarray) -> tuple[np.ndarray, int]:
        return np.zeros((len(neural), 1)), 0

    def observe(self, token: int) -> None:
        pass


class NgramEstimator:
    """n-grams, of which `update_tokens` at a time are counted, in the order of the text."""

    def __init__(self, counts: "Counts | HashedCounts", update_tokens: int):
        self.counts, self.update_tokens = counts, update_tokens
        self.waiting: list[np.ndarray] = []  # pieces that have been read and not yet counted
        self.missing = update_tokens  # tokens until they are

    def of_targets(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        return self._read(features["token"].astype(np.int64))

    def of_all_tokens(self, neural: np.ndarray) -> tuple[np.ndarray, int]:
        return self.counts.of_all_tokens()

    def observe(self, token: int) -> None:
        self._read(np.array([token]))

    def _read(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.update_tokens == 1:
            return self.counts.learn(tokens)
        results = []
        while len(tokens):
            piece, tokens = tokens[: self.missing], tokens[self.missing :]
            results.append(self.counts.look(piece))
            self.waiting.append(piece)
            self.missing -= len(piece)
            if self.missing == 0:
                self.counts.learn(np.concatenate(self.waiting))
                self.waiting, self.missing = [], self.update_tokens
        return tuple(np.concatenate(parts) for parts in zip(*results, strict=True))


class Rule(NamedTuple):
    """The formula of the estimates."""

    add_one: bool
    continuations: bool  # Kneser and Ney's counts
    vocabulary_size: int
    discounts: tuple[float, float, float]


class Counts:
    """The n-grams of a text so far, and two positions in it: how far it has been counted and how far it has been read."""

    def __init__(self, settings: Ngram, vocabulary_size: int):
        kind = settings.estimator
        self.rule = Rule(kind == "add_one", kind == "kneser_ney", vocabulary_size, tuple(map(float, settings.discounts)))
        self.limit = 1 + vocabulary_size + settings.table_entries
        self.table = empty_table(NODE, vocabulary_size, self.limit)
        self.counted, self.read = start_of_text(settings.max_order), start_of_text(settings.max_order)

    def look(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """P_1, P_2, … of each token after those before it, (N, orders) float64, and the longest order that its position has,
        int64 (N,); 0 beyond it. The tokens have then been read, but not counted."""
        return self._walk(self.read, tokens, False)

    def learn(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same of tokens that are counted one by one, from where counting stopped last; afterwards reading goes on here."""
        results = self._walk(self.counted, tokens, True)
        for read, counted in zip(self.read, self.counted, strict=True):
            read[:] = counted
        return results

    def of_all_tokens(self) -> tuple[np.ndarray, int]:
        """P_1, P_2, … of every token of the vocabulary in the next position, (V, orders), and the longest order there."""
        estimates = np.zeros((self.rule.vocabulary_size, len(self.read.contexts)))
        return estimates, estimate_all(self.table, self.read, self.rule, estimates)

    def _walk(self, cursor: Cursor, tokens: np.ndarray, counting: bool) -> tuple[np.ndarray, np.ndarray]:
        out = np.zeros((len(tokens), len(cursor.contexts))), np.empty(len(tokens), np.int64)
        done = 0
        while (done := walk(self.table, cursor, self.rule, tokens, done, counting, self.limit, *out)) < len(tokens):
            self.table = grown(self.table, self.rule.vocabulary_size, self.limit)
        return out


@njit
def walk(table, cursor, rule, tokens, start, counting, limit, estimates, matched):
    """Estimate each token, and then count it if so asked; returns where to go on when the table has grown."""
    orders = len(cursor.contexts)
    for i in range(start, len(tokens)):
        if counting and table.used[0] + orders > len(table.nodes) < limit:
            return i
        token = np.int64(tokens[i])
        matched[i] = matched_order(table, cursor)
        seen = find(table, cursor, matched[i], token)
        estimate(table, cursor, rule, matched[i], seen, estimates[i])
        if counting:
            count(table, cursor, rule, token, seen)
        else:
            advance(cursor, seen)
    return len(tokens)


@njit
def estimate_all(table, cursor, rule, estimates):
    matched = matched_order(table, cursor)
    for token in range(len(estimates)):
        estimate(table, cursor, rule, matched, find(table, cursor, matched, token), estimates[token])
    return matched


@njit
def matched_order(table, cursor):
    """The longest order whose context has had a successor; 0 when nothing has been counted."""
    matched = 0
    while matched < cursor.known[0] and table.nodes[cursor.contexts[matched]].total > 0:
        matched += 1
    return matched


@njit
def estimate(table, cursor, rule, matched, seen, out):
    """P_1 … P_matched of the token that `find` found `seen` n-grams of."""
    probability = 1 / rule.vocabulary_size
    for k in range(matched):
        context = table.nodes[cursor.contexts[k]]
        occurrences = np.int64(table.nodes[cursor.found[k]].count) if k < seen else 0
        if rule.add_one:
            probability = (occurrences + 1) / (context.total + rule.vocabulary_size)
        else:
            d = rule.discounts
            kept = occurrences - d[min(occurrences, 3) - 1] if occurrences else 0.0
            taken = d[0] * context.ones + d[1] * context.twos + d[2] * context.more
            probability = (kept + taken * probability) / context.total
        out[k] = probability


@njit
def count(table, cursor, rule, token, seen):
    """Count the n-grams that end with `token`, of which `seen` have been counted before, and go on to the next place."""
    stored = add_longer(table, cursor, seen, token)
    lowest = 0
    if rule.continuations:  # the longest, and those whose longer n-gram is new
        lowest = max(0, seen - 1) if stored > seen else len(cursor.contexts) - 1
    for k in range(lowest, stored):
        node, context = table.nodes[cursor.found[k]], table.nodes[cursor.contexts[k]]
        if node.count == 0:
            context.ones += 1
        elif node.count == 1:
            context.ones -= 1
            context.twos += 1
        elif node.count == 2:
            context.twos -= 1
            context.more += 1
        node.count += 1
        context.total += 1
    advance(cursor, stored)
