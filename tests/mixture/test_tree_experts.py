"""What each expert of the tree mixture is good for: texts that only it understands, and a network that knows nothing."""

import numpy as np

from fairway.mixture.tree_mixture import word_starts
from tests.mixture.test_tree_mixture import bits, flat, stream_of

NOISE = np.random.default_rng(8).integers(0, 64, 4000)


def test_a_match_makes_long_repeats_cheap():
    """Of different tokens and without contexts, so that nothing else can."""
    cost = bits(flat(np.tile(np.random.default_rng(15).permutation(256), 6), 256), max_order=1)
    assert cost[:256].mean() > 7 and cost[1280:].mean() < 1.5


def test_a_repeated_text_is_cheap_where_all_experts_work_together():
    stream = stream_of(np.tile(NOISE[:500], 4), np.arange(64, dtype=np.uint16))
    alone = -np.log2(stream.neural_NV[np.arange(2000), stream.tokens])
    cost = bits(stream)
    assert cost[:500].mean() > 4 and cost[1500:].mean() < 0.25 * alone[1500:].mean()


def test_contexts_of_tokens_learn_a_source_of_their_order():
    """A token follows from the two before it, four times of five."""
    random = np.random.default_rng(9)
    rule, text = random.integers(0, 16, (16, 16)), [0, 0]
    for _ in range(6000):
        text.append(rule[text[-2], text[-1]] if random.random() < 0.8 else random.integers(16))
    costs = [bits(flat(np.array(text), 16), max_order=order)[3000:].mean() for order in (1, 2, 3)]
    assert costs[2] < costs[1] - 0.3 and costs[2] < costs[0] - 0.3


def spelled(words: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Words one after another, each behind a token 0."""
    return np.concatenate([np.concatenate(([0], words[word])) for word in order])


def test_the_word_so_far_is_a_context():
    """Seven letters of 20 words in any order: the last letters are clear from the word so far only."""
    random = np.random.default_rng(10)
    words = np.concatenate((random.integers(1, 3, (20, 5)), random.integers(3, 16, (20, 2))), axis=1)
    stream = flat(spelled(words, random.integers(0, 20, 600)), 16)
    with_words, without = (bits(stream, starts, max_order=2)[2400:] for starts in (np.arange(16) == 0, None))
    assert with_words.mean() < without.mean() - 0.3


def test_the_words_before_are_contexts():
    """Words of three letters in an order where each follows from the one before it, or from the two before it."""
    random = np.random.default_rng(11)
    words, starts = random.integers(1, 5, (8, 3)), np.arange(16) == 0
    by_one, by_two = random.integers(0, 8, 8), random.integers(0, 8, (8, 8))
    for rule in (lambda two, one: by_one[one], lambda two, one: by_two[two, one]):
        order = [0, 0]
        for _ in range(1000):
            order.append(rule(*order[-2:]) if random.random() < 0.7 else random.integers(8))
        shuffled = random.permutation(order)
        costs = [
            bits(flat(spelled(words, np.array(sequence)), 16), starts, max_order=1)[2000:].mean()
            for sequence in (order, shuffled)
        ]
        assert costs[0] < costs[1] - 0.25


def test_the_history_of_the_nodes_learns_how_frequent_tokens_are():
    text = np.random.default_rng(12).choice(64, 6000, p=np.arange(1, 65)[::-1] ** 2 / (np.arange(1, 65) ** 2).sum())
    frequencies = np.bincount(text, minlength=64) / len(text)
    entropy = -(frequencies[frequencies > 0] * np.log2(frequencies[frequencies > 0])).sum()
    assert bits(flat(text, 64), max_order=1)[2000:].mean() < entropy + 0.15 < 6


def test_a_cache_that_knows_is_believed():
    """Where its nearest state is near, and not where it is far."""
    sure = np.random.default_rng(13).random(4000) < 0.5
    cached = np.full((4000, 64), 1 / 64)
    cached[sure] = 0.7 / 64 + 0.3 * np.eye(64)[NOISE[sure]]
    cached[~sure] = 0.7 / 64 + 0.3 * np.eye(64)[(NOISE[~sure] + 7) % 64]
    stream = flat(NOISE, 64)._replace(cached_NV=cached, nearest=np.where(sure, 0.95, 0.3).astype(np.float32))
    cost = bits(stream)[2000:]
    assert cost[sure[2000:]].mean() < 1.5 and cost[~sure[2000:]].mean() < 6.3


def test_a_word_begins_with_a_space_a_line_or_a_document():
    pieces = [b"a", b" a", b"\n", b"\0", b"a ", b" ", b""]
    assert word_starts(pieces).tolist() == [False, True, True, True, False, True, False]
