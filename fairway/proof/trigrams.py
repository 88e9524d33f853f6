"""A trigram model of tokens, for what documents cost a model that knows train and nothing else.

Absolute discounting, interpolated down to unigrams (Ney, Essen and Kneser, 1994). Counts are sorted arrays: three million
tokens take a second and 100 MB.
"""

import numpy as np

DISCOUNT = 0.75  # of every count
ORDER = 3


class Trigrams:
    """Of uint16 tokens of a vocabulary of at most 65,536."""

    def __init__(self, tokens: np.ndarray, vocabulary_size: int):
        self.vocabulary_size = vocabulary_size
        tokens = tokens.astype(np.int64)
        self.unigrams_V = (np.bincount(tokens, minlength=vocabulary_size) + 0.5) / (len(tokens) + 0.5 * vocabulary_size)
        self.tables = [self._counted(tokens, order) for order in range(2, ORDER + 1)]

    def nats(self, tokens: np.ndarray) -> np.ndarray:
        """−ln p of tokens[1:], float64, each given at most the two before it."""
        tokens = tokens.astype(np.int64)
        probability = self.unigrams_V[tokens]
        for order, (grams, counts, contexts, totals, kinds) in enumerate(self.tables, 2):
            keys, lower = self._keys(tokens, order), probability[order - 1 :]
            place, known = found(grams, keys)
            count = np.where(known, counts[place], 0)
            place, known = found(contexts, keys // self.vocabulary_size)
            mixed = (np.maximum(count - DISCOUNT, 0) + DISCOUNT * kinds[place] * lower) / totals[place]
            probability = np.concatenate([probability[: order - 1], np.where(known, mixed, lower)])
        return -np.log(probability[1:])

    def _keys(self, tokens: np.ndarray, order: int) -> np.ndarray:
        """Every n-gram of this order as one number, the last token in its lowest digit."""
        return sum(tokens[order - 1 - back : len(tokens) - back] * self.vocabulary_size**back for back in range(order))

    def _counted(self, tokens: np.ndarray, order: int) -> tuple[np.ndarray, ...]:
        """n-grams and their counts; their contexts, with the sum of the counts and the number of kinds that follow each."""
        grams, counts = np.unique(self._keys(tokens, order), return_counts=True)
        contexts, starts = np.unique(grams // self.vocabulary_size, return_index=True)
        return grams, counts, contexts, np.add.reduceat(counts, starts), np.diff(starts, append=len(grams))


def found(table: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of the keys in a sorted table, and whether they are there."""
    place = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return place, table[place] == keys
