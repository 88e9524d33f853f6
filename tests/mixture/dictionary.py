"""The n-gram mixtures and the match model written from their formulas with dictionaries of tuples: the oracle of the tests.

Shares no code with fairway but the names of the settings. bench/ngram.py measures it too: it is what one would write first.
"""

import math
from collections import defaultdict

PRIMES = (36313, 27191, 51593, 73721, 96017, 11587, 29123)


class DictionaryCounts:
    """Counts of n-grams: successors[context][token], for contexts of 0, 1, … tokens."""

    def __init__(self, settings, vocabulary: int):
        self.settings, self.vocabulary = settings, vocabulary
        self.successors: dict[tuple, dict[int, int]] = defaultdict(dict)
        self.entries = 0  # stored n-grams of two and more tokens
        self.text: list[int] = []

    def contexts(self, text: list[int]) -> list[tuple]:
        """The last 0, 1, … tokens, as far as there are any."""
        lengths = range(min(self.settings.max_order, len(text) + 1))
        return [tuple(text[len(text) - length :]) for length in lengths]

    def seen(self, text: list[int]) -> list[dict[int, int]]:
        """What followed each context, the shortest first; the first context that nothing followed ends the list."""
        found = []
        for context in self.contexts(text):
            if not self.successors.get(context):
                break
            found.append(self.successors[context])
        return found

    def estimates(self, seen: list[dict[int, int]], token: int) -> list[float]:
        """P_1(token), P_2(token), …"""
        discounts, below, results = self.settings.discounts, 1 / self.vocabulary, []
        for followers in seen:
            count, total = followers.get(token, 0), sum(followers.values())
            if self.settings.estimator == "add_one":
                below = (count + 1) / (total + self.vocabulary)
            else:
                mass = sum(discounts[min(other, 3) - 1] for other in followers.values())
                kept = count - discounts[min(count, 3) - 1] if count else 0
                below = (kept + mass * below) / total
            results.append(below)
        return results

    def count(self, token: int) -> None:
        contexts = self.contexts(self.text)
        room = self.entries + self.settings.max_order <= self.settings.table_entries
        new = [token not in self.successors.get(context, {}) for context in contexts]
        for length, context in enumerate(contexts):
            if new[length] and not (room or length == 0):
                break  # and no longer n-gram is known either
            counts = True
            if self.settings.estimator == "kneser_ney" and length + 1 < self.settings.max_order:
                # as often as there are different tokens before it; the beginning of the text is one
                counts = length + 1 == len(contexts) or (room and new[length + 1])
            self.entries += new[length] and length > 0
            if counts:
                self.successors[context][token] = self.successors[context].get(token, 0) + 1
        self.text.append(token)


class HashedDictionaryCounts:
    """#885: two counts a bucket and order, of contexts and of whole n-grams."""

    def __init__(self, settings, vocabulary: int, buckets: int = 1 << 22):
        self.settings, self.vocabulary, self.buckets = settings, vocabulary, buckets
        self.counts: dict[tuple, int] = defaultdict(int)
        self.text: list[int] = []

    def bucket(self, tokens: list[int]) -> int:
        code = 0
        for place, token in enumerate(tokens):
            code ^= PRIMES[place % 7] * token
        return code % self.buckets

    def seen(self, text: list[int]) -> list[list[int]]:
        """The context of order 1, 2, … up to the longest that occurred twice."""
        contexts = [text[len(text) - n + 1 :] for n in range(1, min(self.settings.max_order, len(text) + 1) + 1)]
        often = [n for n, context in enumerate(contexts) if n and self.counts[n, "context", self.bucket(context)] >= 2]
        return contexts[: often[-1] + 1] if often else []

    def estimates(self, seen: list[list[int]], token: int) -> list[float]:
        results = [1 / self.vocabulary][: len(seen)]
        for n, context in list(enumerate(seen))[1:]:
            whole = self.counts[n, "n-gram", self.bucket([*context, token])]
            of_context = self.counts[n, "context", self.bucket(context)]
            results.append(min(1.0, whole / of_context) if of_context else 0.0)
        return results

    def count(self, token: int) -> None:
        for n in range(1, min(self.settings.max_order, len(self.text) + 1)):
            context = self.text[len(self.text) - n :]
            self.counts[n, "context", self.bucket(context)] += 1
            self.counts[n, "n-gram", self.bucket([*context, token])] += 1
        self.text.append(token)


class DictionaryMixture:
    """linear, fixed and entropy. `text` is all that has been read; the counts may be behind it."""

    def __init__(self, settings, vocabulary: int):
        self.settings, self.vocabulary = settings, vocabulary
        hashed = settings.estimator == "hashed_ratio"
        self.counts = HashedDictionaryCounts(settings, vocabulary) if hashed else DictionaryCounts(settings, vocabulary)
        self.text: list[int] = []
        self.weights: dict[tuple[int, int], list[float]] = {}

    def row(self, matched: int, entropy: float) -> list[float]:
        """The weights of a class: the network's, and those of order 1, 2, … matched."""
        bins = self.settings.entropy_bins
        key = matched, min(int(entropy / (math.log(self.vocabulary) / bins)), bins - 1)
        if key not in self.weights:
            start = [self.settings.neural_weight] + [(1 - self.settings.neural_weight) / self.settings.max_order] * matched
            self.weights[key] = [weight / sum(start) for weight in start]
        return self.weights[key]

    def probability(self, seen: list, token: int, neural: float, entropy: float) -> float:
        estimates = self.counts.estimates(seen, token)
        if self.settings.mixture == "linear":
            row = self.row(len(estimates), entropy)
            return sum(weight * expert for weight, expert in zip(row, [neural, *estimates], strict=True))
        share = 1 - self.settings.neural_weight
        if self.settings.mixture == "entropy":
            share = 0.08 + 0.65 / (1 + math.exp(-2 * (entropy - 3.5)))
        return (1 - share) * neural + share * estimates[-1] if estimates else neural

    def distribution(self, neural: list[float], entropy: float) -> list[float]:
        seen = self.counts.seen(self.text)
        return [self.probability(seen, token, neural[token], entropy) for token in range(self.vocabulary)]

    def score(self, token: int, neural: float, entropy: float) -> tuple[float, int]:
        """Nats and matched order of one token, which is then learned from."""
        seen = self.counts.seen(self.text)
        probability = self.probability(seen, token, neural, entropy)
        if self.settings.mixture == "linear":
            row, experts = self.row(len(seen), entropy), [neural, *self.counts.estimates(seen, token)]
            rate = self.settings.learning_rate
            for expert, estimate in enumerate(experts):
                row[expert] = max(row[expert] * math.exp(rate * min(estimate / probability, 50)), 1e-6)
            row[:] = [weight / sum(row) for weight in row]
        self.text.append(token)
        if len(self.text) % self.settings.update_tokens == 0:
            for late in self.text[len(self.counts.text) :]:
                self.counts.count(late)
        return -math.log(probability), len(seen)


class DictionaryTilt:
    """#1514, with a β for each length of context that follows the gradient."""

    def __init__(self, settings):
        self.beta, self.rate = defaultdict(lambda: settings.tilt), settings.learning_rate

    def distribution(self, neural: list[float], match: int, order: int) -> list[float]:
        weights = [math.exp(self.beta[order]) if order and token == match else 1.0 for token in range(len(neural))]
        total = sum(p * weight for p, weight in zip(neural, weights, strict=True))
        return [p * weight / total for p, weight in zip(neural, weights, strict=True)]

    def learn(self, token: int, neural: list[float], match: int, order: int) -> None:
        """The derivative of ln p'(token) by β, by central difference."""
        if order:
            values, beta = [], self.beta[order]
            for self.beta[order] in (beta - 1e-4, beta + 1e-4):
                values.append(math.log(self.distribution(neural, match, order)[token]))
            self.beta[order] = beta + self.rate * (values[1] - values[0]) / 2e-4


class DictionaryMatch:
    """Of the longest context of at most eight tokens that has been seen: the successor that was first to be so frequent."""

    def __init__(self):
        self.times: dict[tuple, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))  # context → token → when
        self.text: list[int] = []

    def predict(self) -> tuple[int, int]:
        for length in range(min(8, len(self.text)), 0, -1):
            times = self.times.get(tuple(self.text[-length:]))
            if times:
                return min(times, key=lambda token: (-len(times[token]), times[token][-1])), length
        return 0, 0

    def observe(self, token: int) -> None:
        for length in range(1, min(8, len(self.text)) + 1):
            self.times[tuple(self.text[-length:])][token].append(len(self.text))
        self.text.append(token)
