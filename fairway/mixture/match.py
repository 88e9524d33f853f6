"""The match model: the token that has followed the longest context seen before most often (#1514).

Contexts are exact, of at most eight tokens. Of successors that are equally frequent it is the one that came to that count
first. A match depends on nothing but tokens, so that all matches of a text can be found before the network has read it, and
the network's probability of each can be recorded while it scores the text.
"""

import numpy as np

from fairway.kernels import njit
from fairway.mixture.features import Features
from fairway.mixture.ngram_table import add_longer, advance, empty_table, find, grown, start_of_text

LONGEST = 8  # tokens in a context
TABLE_ENTRIES = 1 << 26  # n-grams that are held, at most

# best: the most frequent successor; best_count: how often it has followed, 0 when nothing has
NODE = np.dtype([("parent", "u4"), ("count", "u4"), ("best_count", "u4"), ("token", "u2"), ("best", "u2")])


class MatchModel:
    """The successors of every context of a text so far; no new ones when `table_entries` n-grams are held.

    As an estimator (estimators.py): of each token, the network's probability of the match token, and 1 where it is that token.
    Its order is the length of the match with the token itself, 0 without a match.
    """

    def __init__(self, vocabulary_size: int, table_entries: int = TABLE_ENTRIES):
        self.vocabulary_size, self.limit = vocabulary_size, 1 + vocabulary_size + table_entries
        self.table, self.cursor = empty_table(NODE, vocabulary_size, self.limit), start_of_text(1 + LONGEST)

    def predict(self) -> tuple[int, int]:
        """The match token for the next position and the length of its context; (0, 0): there is no match."""
        return best(self.table, self.cursor)

    def observe(self, token: int) -> None:
        self.scan(np.array([token]))

    def scan(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The match token for each token, uint16 (N,), and the length of its context, uint8 (N,); it is then observed."""
        out = np.empty(len(tokens), np.uint16), np.empty(len(tokens), np.uint8)
        done = 0
        while (done := scan(self.table, self.cursor, tokens, done, self.limit, *out)) < len(tokens):
            self.table = grown(self.table, self.vocabulary_size, self.limit)
        return out

    def of_targets(self, features: Features) -> tuple[np.ndarray, np.ndarray]:
        matches, lengths = self.scan(features["token"])
        estimates = np.stack((np.exp(-features["match_nats"].astype(np.float64)), features["token"] == matches), axis=1)
        return estimates, lengths.astype(np.int64) + (lengths > 0)

    def of_all_tokens(self, neural: np.ndarray) -> tuple[np.ndarray, int]:
        match, length = self.predict()
        estimates = np.stack((np.full(len(neural), neural[match]), np.arange(len(neural)) == match), axis=1)
        return estimates, length + (length > 0)


@njit
def best(table, cursor):
    for k in range(cursor.known[0] - 1, 0, -1):
        context = table.nodes[cursor.contexts[k]]
        if context.best_count > 0:
            return np.int64(context.best), k
    return 0, 0


@njit
def scan(table, cursor, tokens, start, limit, matches, lengths):
    """Returns where to go on when the table has grown."""
    for i in range(start, len(tokens)):
        if table.used[0] + len(cursor.contexts) > len(table.nodes) < limit:
            return i
        matches[i], lengths[i] = best(table, cursor)
        token = np.int64(tokens[i])
        stored = add_longer(table, cursor, find(table, cursor, cursor.known[0], token), token)
        for k in range(stored):
            node, context = table.nodes[cursor.found[k]], table.nodes[cursor.contexts[k]]
            node.count += 1
            if node.count > context.best_count:
                context.best_count, context.best = node.count, token
        advance(cursor, stored)
    return len(tokens)
