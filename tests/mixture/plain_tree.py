"""The tree mixture written from its definition with dictionaries, lists and floats: the oracle of test_tree_mixture.py.

Shares no code with fairway but the names of its constants. Nothing is hashed: a context is a tuple of tokens or words, a node
a range of leaves, and where the match goes on is looked up in the whole text.
"""

import math
from typing import NamedTuple

from fairway.mixture.context_table import MAX_COUNT, SUCCESSORS
from fairway.mixture.node import (
    CONTEXT_START_WEIGHT,
    COSINE_CLASSES,
    FINAL_RATE,
    LENGTH_CLASSES,
    MATCH_START,
    MAX_DECISIONS,
    MAX_LOG_ODDS,
    MAX_MATCH,
    MAX_SIDE_COUNT,
    MIXERS,
    ODDS_CLASSES,
    PRIOR_COUNT,
    SHORT_MATCH,
    START_WEIGHTS,
    WORD_CONTEXTS,
)
from fairway.mixture.tree import FLOOR


class Decision(NamedTuple):
    """What was said at a node, for learning."""

    node: tuple[int, int]
    inputs: list[float]  # log-odds, one an expert
    sides: list[tuple[int, int]]  # counts to the left and to the right, one a context
    rows: list[tuple]  # the weights in use, one a mixer
    outputs: list[float]  # log-odds, one a mixer
    final: tuple[int, int]
    odds: float


def squash(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def stretch(p: float) -> float:
    return math.log(p / (1 - p))


def log_odds(probabilities: list[float], lo: int, hi: int) -> float:
    """Of the right half of a node, `probabilities` being those of the leaves."""
    half = (lo + hi) // 2
    left, right = math.fsum(probabilities[lo:half]), math.fsum(probabilities[half:hi])
    return math.log(max(right, FLOOR)) - math.log(max(left, FLOOR))


class PlainTree:
    """What the mixture knows after some prefix of a text that begins with BOS."""

    def __init__(self, settings, ranks, starts, bos: int):
        self.settings, self.ranks, self.starts = settings, [int(rank) for rank in ranks], [bool(start) for start in starts]
        self.entropy_bin = math.log(len(ranks)) / settings.entropy_bins
        self.text, self.words, self.match = [], [(), (), ()], None
        self.successors: dict[tuple, list[list[int]]] = {}  # context → [[token, count], …], the most recent first
        self.history: dict[tuple[int, int], list[int]] = {}  # node → times gone left, times gone right
        self.maps: dict[tuple, list[float]] = {}  # (context number, left, right) → [probability of right, decisions]
        self.hits: dict[int, list[float]] = {}  # length of the match → [probability that it is right, decisions]
        self.weights: dict[tuple, list[float]] = {}
        self.finals: dict[tuple[int, int], list[float]] = {}
        self.extend(bos)

    def contexts(self) -> list[tuple]:
        """One word, two, three; then one token, two, …; before the beginning there is nothing, None."""
        words = [("words", *self.words[-count:]) for count in range(1, WORD_CONTEXTS + 1)]
        padded = [None] * 9 + self.text
        return words + [("tokens", *padded[-count:]) for count in range(1, self.settings.max_order)]

    def matched(self) -> int:
        """Tokens in the longest context of tokens that has been seen, all the shorter ones having been seen too."""
        count, contexts = 0, self.contexts()[WORD_CONTEXTS:]
        while count < len(contexts) and contexts[count] in self.successors:
            count += 1
        return count

    def match_length(self) -> int:
        """For how many tokens the text before the match has been what it has been of late; 0 without a match."""
        return 0 if self.match is None else self.common(self.match)

    def common(self, place: int) -> int:
        length = 0
        while length < min(place, MAX_MATCH - 1) and self.text[place - 1 - length] == self.text[-1 - length]:
            length += 1
        return length

    def decide(self, lo: int, hi: int, level: int, given: tuple[float, float], nearest: float, entropy: float) -> Decision:
        half = (lo + hi) // 2
        network, cached = (max(-12.0, min(12.0, odds)) for odds in given)
        inputs, sides, length = [network, cached - network], [], 0
        if self.match is not None and lo <= self.ranks[self.text[self.match]] < hi:
            length = self.match_length()
            hit = stretch(self.hits.setdefault(length, [MATCH_START, 0])[0])
            inputs.append(hit if self.ranks[self.text[self.match]] >= half else -hit)
        else:
            inputs.append(0.0)
        left, right = self.history.get((lo, hi), (0, 0))
        inputs.append(math.log((right + PRIOR_COUNT) / (left + PRIOR_COUNT)))
        for number, context in enumerate(self.contexts()):
            seen = self.successors.get(context, [])
            a = min(MAX_SIDE_COUNT, sum(count for token, count in seen if lo <= self.ranks[token] < half))
            b = min(MAX_SIDE_COUNT, sum(count for token, count in seen if half <= self.ranks[token] < hi))
            sides.append((a, b))
            start = [(b + PRIOR_COUNT) / (a + b + 2 * PRIOR_COUNT), 0]
            inputs.append(stretch(self.maps.setdefault((number, a, b), start)[0]) if a + b else 0.0)
        near = max(0, min(COSINE_CLASSES - 1, math.floor(-2 * math.log(max(1 - nearest, 1e-9)))))
        sure = min(ODDS_CLASSES - 1, math.floor(4 * abs(network)))
        rows = [
            ("order", level, self.matched()),
            ("match", min(length, LENGTH_CLASSES - 1), near),
            ("sure", near, sure),
            ("node", lo, hi),
        ]
        start = [*START_WEIGHTS, *[CONTEXT_START_WEIGHT] * len(sides)]
        outputs = [
            math.fsum(w * x for w, x in zip(self.weights.setdefault(row, start[:]), inputs, strict=True)) for row in rows
        ]
        final = level, min(self.settings.entropy_bins - 1, max(0, math.floor(entropy / self.entropy_bin)))
        weights = self.finals.setdefault(final, [1 / MIXERS] * MIXERS)
        total = math.fsum(w * x for w, x in zip(weights, outputs, strict=True))
        return Decision((lo, hi), inputs, sides, rows, outputs, final, max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, total)))

    def distribution(self, neural: list[float], cached: list[float], nearest: float, entropy: float) -> list[float]:
        leaves = sorted(range(len(self.ranks)), key=self.ranks.__getitem__)
        neural, cached = [neural[token] for token in leaves], [cached[token] for token in leaves]
        found = {}

        def descend(lo: int, hi: int, level: int, mass: float) -> None:
            if hi - lo == 1:
                found[leaves[lo]] = mass
                return
            given = log_odds(neural, lo, hi), log_odds(cached, lo, hi)
            right = squash(self.decide(lo, hi, level, given, nearest, entropy).odds)
            descend(lo, (lo + hi) // 2, level + 1, mass * (1 - right))
            descend((lo + hi) // 2, hi, level + 1, mass * right)

        descend(0, len(leaves), 0, 1.0)
        return [found[token] for token in range(len(leaves))]

    def score(self, token: int, path: list[tuple[float, float]], nearest: float, entropy: float) -> tuple[float, int]:
        """Nats of one token, which is then learned from, and the longest order whose context has been seen."""
        lo, hi, nats, matched, decisions = 0, len(self.ranks), 0.0, self.matched(), []
        while hi - lo > 1:
            decisions.append(self.decide(lo, hi, len(decisions), path[len(decisions)], nearest, entropy))
            half, right = (lo + hi) // 2, self.ranks[token] >= (lo + hi) // 2
            nats += math.log1p(math.exp(-decisions[-1].odds if right else decisions[-1].odds))
            lo, hi = (half, hi) if right else (lo, half)
        for decision in decisions:
            self.learn(decision, int(self.ranks[token] >= sum(decision.node) // 2))
        self.count(token)
        self.extend(token)
        return nats, matched + 1

    def learn(self, decision: Decision, right: int) -> None:
        rate, (lo, hi) = self.settings.learning_rate, decision.node
        for m, (row, output) in enumerate(zip(decision.rows, decision.outputs, strict=True)):
            for expert, x in enumerate(decision.inputs):
                self.weights[row][expert] += rate * (right - squash(output)) * x
            self.finals[decision.final][m] += FINAL_RATE * rate * (right - squash(decision.odds)) * output
        if self.match is not None and lo <= self.ranks[self.text[self.match]] < hi:
            hit = self.hits[self.match_length()]
            held = (self.ranks[self.text[self.match]] >= (lo + hi) // 2) == bool(right)
            hit[1] += 1
            hit[0] = max(0.001, min(0.9995, hit[0] + (held - hit[0]) / min(hit[1] + 3, MAX_DECISIONS)))
        for number, (a, b) in enumerate(decision.sides):
            if a + b:
                entry = self.maps[number, a, b]
                entry[0] = max(0.0005, min(0.9995, entry[0] + (right - entry[0]) / (entry[1] + 6)))
                entry[1] = min(MAX_DECISIONS, entry[1] + 1)
        self.history.setdefault((lo, hi), [0, 0])[right] += 1

    def count(self, token: int) -> None:
        """The token has followed each of the contexts, as far as there is room for them."""
        for context in self.contexts():
            if context not in self.successors and len(self.successors) == self.settings.table_entries:
                continue
            followers = self.successors.setdefault(context, [])
            times = sum(count for other, count in followers if other == token)
            others = [[other, count // 2 + 1 if count > 2 else count] for other, count in followers if other != token]
            self.successors[context] = [[token, min(times + 1, MAX_COUNT)], *others[: SUCCESSORS - 1]]

    def extend(self, token: int) -> None:
        """The match goes on while it was right. While it is shorter than SHORT_MATCH, a longer one takes its place: where the
        text went on after these SHORT_MATCH tokens came last, or after this one."""
        if self.starts[token]:
            self.words = [*self.words[1:], ()]
        self.words[-1] += (token,)
        went_on = self.match is not None and self.text[self.match] == token
        self.match = self.match + 1 if went_on else None
        self.text.append(token)
        for count in (SHORT_MATCH, 1):
            ends = range(count, len(self.text))
            before = [end for end in ends if self.text[end - count : end] == self.text[-count:]]
            if self.match_length() < SHORT_MATCH and before and self.common(before[-1]) > self.match_length():
                self.match = before[-1]
