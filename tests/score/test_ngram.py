"""The n-gram model and the learned mixture against an oracle of dictionaries, written from their definition alone.

Probabilities of every order, the mixture, and its weights after every token; tables that grow; and noise, which no
honest cache can predict. One file, because Numba compiles the kernels once a process.
"""

import dataclasses
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.score.config import Ngram
from fairway.score.mixture import NgramMixture
from fairway.score.ngram import empty_table

SETTINGS = Ngram("linear", max_order=5, discount=0.75, learning_rate=0.05, entropy_bins=3, neural_weight=0.6)
VOCABULARY = 6


class Oracle:
    """Interpolated absolute discounting over exact contexts, mixed by exponentiated gradient."""

    def __init__(self, config: Ngram, vocabulary: int):
        self.config, self.vocabulary = config, vocabulary
        self.counts: dict[tuple, Counter] = defaultdict(Counter)
        self.text: list = [None] * config.max_order  # before the beginning
        share = (1 - config.neural_weight) / config.max_order
        self.weights = {}
        for matched in range(config.max_order + 1):
            total = config.neural_weight + share * matched
            for bin in range(config.entropy_bins):
                self.weights[matched, bin] = [config.neural_weight / total, *[share / total] * matched]

    def contexts(self) -> list[tuple]:
        """Of orders 1, 2, …: the last 0, 1, … tokens."""
        return [tuple(self.text[len(self.text) - n :]) for n in range(self.config.max_order)]

    def orders(self, token: int) -> list[float]:
        """P_1(token) … P_matched(token)."""
        below, result = 1 / self.vocabulary, []
        for context in self.contexts():
            if context not in self.counts:
                break
            seen = self.counts[context]
            left = max(seen[token] - self.config.discount, 0) if token in seen else 0
            below = (left + self.config.discount * len(seen) * below) / seen.total()
            result.append(below)
        return result

    def row(self, entropy: float) -> tuple[int, int]:
        bin = int(entropy / (math.log(self.vocabulary) / self.config.entropy_bins))
        return len(self.orders(0)), min(bin, self.config.entropy_bins - 1)

    def probability(self, token: int, neural: float, entropy: float) -> float:
        experts = [neural, *self.orders(token)]
        return sum(weight * expert for weight, expert in zip(self.weights[self.row(entropy)], experts, strict=True))

    def learn(self, token: int, neural: float, entropy: float) -> None:
        row, probability = self.row(entropy), self.probability(token, neural, entropy)
        gains = [expert / probability for expert in [neural, *self.orders(token)]]
        moved = [w * math.exp(self.config.learning_rate * min(g, 50)) for w, g in zip(self.weights[row], gains, strict=True)]
        moved = [max(weight, 1e-6) for weight in moved]
        self.weights[row] = [weight / sum(moved) for weight in moved]
        for context in self.contexts():
            self.counts[context][token] += 1
        self.text.append(token)


def neural_guesses(count: int, vocabulary: int, seed: int) -> np.ndarray:
    """Distributions (count, V) of a network that knows nothing about the text, sharp ones and flat ones."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=(count, vocabulary)) * random.choice([0.2, 1.0, 3.0], size=(count, 1))
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def entropies(distributions: np.ndarray) -> np.ndarray:
    return -(distributions * np.log(distributions)).sum(1)


texts = st.lists(st.integers(0, VOCABULARY - 1) | st.sampled_from([2, 3]), min_size=1, max_size=60)


@settings(max_examples=40)
@given(texts, st.integers(1, 5), st.sampled_from([0.3, 0.75, 0.95]), st.sampled_from([0.02, 2.0]))
def test_every_order_and_the_mixture_equal_the_oracle(text, max_order, discount, learning_rate):
    config = dataclasses.replace(SETTINGS, max_order=max_order, discount=discount, learning_rate=learning_rate)
    ours, oracle = NgramMixture(config, VOCABULARY), Oracle(config, VOCABULARY)
    neural = neural_guesses(len(text), VOCABULARY, len(text))
    entropy = entropies(neural)
    for i, token in enumerate(text):
        distribution = ours.distribution(neural[i], entropy[i])
        expected = [oracle.probability(t, neural[i, t], entropy[i]) for t in range(VOCABULARY)]
        np.testing.assert_allclose(distribution, expected, rtol=1e-9)
        assert distribution.sum() == pytest.approx(1, abs=1e-9)
        orders = oracle.orders(VOCABULARY - 1)  # the kernel leaves the experts of the last token it was asked for
        np.testing.assert_allclose(ours.working.experts[1 : 1 + len(orders)], orders, rtol=1e-9)
        nats, matched = ours.score(np.array([token]), -np.log(neural[i, [token]]), entropy[[i]])
        assert nats[0] == pytest.approx(-math.log(expected[token]), abs=1e-5) and matched[0] == len(orders)
        row = oracle.row(entropy[i])
        oracle.learn(token, neural[i, token], entropy[i])
        weights = ours.working.weights[row[0] * config.entropy_bins + row[1]]
        np.testing.assert_allclose(weights[: 1 + row[0]], oracle.weights[row], rtol=1e-9)


def test_every_order_is_a_distribution():
    """The last tokens of a text with structure: each order sums to 1, and higher orders know more."""
    text = [0, 1, 2, 0, 1, 3, 0, 1, 2, 0, 1] * 4
    mixture = NgramMixture(SETTINGS, VOCABULARY)
    flat = np.full((len(text), VOCABULARY), 1 / VOCABULARY)
    mixture.score(np.array(text), -np.log(flat[:, 0]), entropies(flat))
    sums = np.zeros(1 + SETTINGS.max_order)
    for token in range(VOCABULARY):
        # Every token in the place of the last: distribution() leaves the experts of the last token asked for.
        swapped = NgramMixture(SETTINGS, VOCABULARY)
        order = [token if t == VOCABULARY - 1 else VOCABULARY - 1 if t == token else t for t in range(VOCABULARY)]
        renamed = np.array(order)[text]
        swapped.score(renamed, -np.log(flat[:, 0]), entropies(flat))
        swapped.distribution(flat[0], math.log(VOCABULARY))
        sums += swapped.working.experts
    np.testing.assert_allclose(sums, 1, rtol=1e-9)


def random_text(count: int, vocabulary: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, count)


def score(text: np.ndarray, vocabulary: int, pieces: int = 1, capacity: int | None = None, config: Ngram = SETTINGS):
    """Nats, orders and the mixture after scoring a text with a uniform network, in so many calls."""
    mixture = NgramMixture(config, vocabulary)
    if capacity:
        mixture.contexts, mixture.pairs = empty_table(capacity), empty_table(capacity)
    uniform = math.log(vocabulary)
    parts = [
        mixture.score(part, np.full(len(part), uniform), np.full(len(part), uniform)) for part in np.array_split(text, pieces)
    ]
    return np.concatenate([nats for nats, _ in parts]), np.concatenate([orders for _, orders in parts]), mixture


def test_growing_tables_change_nothing():
    """20,000 random tokens at order 5 fill tables of 65,536 more than half; a large table never grows."""
    text = random_text(20_000, 64, 0)
    nats, orders, grown = score(text, 64)
    expected_nats, expected_orders, large = score(text, 64, capacity=1 << 19)
    assert len(grown.pairs.keys) > 1 << 16 and len(grown.contexts.keys) > 1 << 16
    assert len(large.pairs.keys) == len(large.contexts.keys) == 1 << 19
    assert nats.tobytes() == expected_nats.tobytes() and orders.tobytes() == expected_orders.tobytes()
    assert grown.pairs.used[0] == large.pairs.used[0] == np.count_nonzero(grown.pairs.keys)


def test_tables_that_double_from_the_start_equal_the_oracle():
    text, oracle = random_text(120, VOCABULARY, 1), Oracle(SETTINGS, VOCABULARY)
    nats, orders, mixture = score(text, VOCABULARY, capacity=16)
    assert len(mixture.pairs.keys) >= 512
    for i, token in enumerate(text.tolist()):
        assert orders[i] == len(oracle.orders(0))
        expected = -math.log(oracle.probability(token, 1 / VOCABULARY, math.log(VOCABULARY)))
        assert nats[i] == pytest.approx(expected, abs=1e-5)
        oracle.learn(token, 1 / VOCABULARY, math.log(VOCABULARY))


def test_a_text_in_pieces_scores_as_in_one_call():
    text = random_text(500, 8, 2)
    assert score(text, 8)[0].tobytes() == score(text, 8, pieces=7)[0].tobytes()


@pytest.mark.parametrize("vocabulary", [4, 256])
@pytest.mark.parametrize("learning_rate", [0.02, 1.0])
def test_noise_costs_at_least_its_entropy(vocabulary, learning_rate):
    """What #885's hashed tables fail: on uniform noise they claim 4 bits of 10 and less with every token seen."""
    config = dataclasses.replace(SETTINGS, learning_rate=learning_rate)
    nats = score(random_text(40_000, vocabulary, 3), vocabulary, config=config)[0]
    assert np.mean(nats, dtype=np.float64) / math.log(2) >= math.log2(vocabulary) - 0.001


def test_a_text_that_repeats_is_learned():
    text = np.tile(random_text(300, 64, 4), 4)
    nats = score(text, 64)[0]
    assert nats[:300].mean() > math.log(64) - 0.1 and nats[900:].mean() < 1.0


def test_a_score_depends_on_nothing_after_it():
    text = random_text(300, 8, 5)
    other = text.copy()
    other[200] = (text[200] + 1) % 8
    one, two = score(text, 8)[0], score(other, 8)[0]
    assert one[:200].tobytes() == two[:200].tobytes()
    assert one[200] != two[200]


def test_no_expert_is_ever_lost():
    """A network that is never right keeps a weight of about a millionth, and comes back when it is needed."""
    mixture = NgramMixture(dataclasses.replace(SETTINGS, learning_rate=5.0, entropy_bins=1), 4)
    text = np.zeros(2000, np.int64)
    mixture.score(text, np.full(2000, 20.0), np.zeros(2000))
    weights = mixture.working.weights[SETTINGS.max_order]
    assert 0 < weights[0] < 1e-5
    nats = mixture.score(np.arange(200) % 4, np.full(200, 1e-3), np.zeros(200))[0]
    assert nats[-20:].mean() < 0.7
