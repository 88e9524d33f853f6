"""The token that the text so far suggests: what has followed the longest context seen before most often.

Contexts are exact, of at most eight tokens. Of successors that are equally frequent it is the one that came to that count
first. A hint depends on nothing but tokens, so that all hints of a text can be made before the network has seen it, and
the network's probability of each can be recorded while it scores the text (#1514).
"""

import numpy as np

from fairway.kernels import njit
from fairway.mixture.ngram_table import add_longer, advance, empty_table, find, grown, start_of_text

LONGEST = 8  # tokens in a context

# best: the most frequent successor; best_count: how often it has followed, 0 when nothing has
NODE = np.dtype([("parent", "u4"), ("count", "u4"), ("best_count", "u4"), ("token", "u2"), ("best", "u2")])


class Match:
    """The successors of every context of a text so far; no new ones when `table_entries` n-grams are held."""

    def __init__(self, vocabulary_size: int, table_entries: int):
        self.vocabulary_size, self.limit = vocabulary_size, 1 + vocabulary_size + table_entries
        self.table, self.cursor = empty_table(NODE, vocabulary_size, self.limit), start_of_text(1 + LONGEST)

    def predict(self) -> tuple[int, int]:
        """The hint for the next token, and the length of the context behind it; length 0: there is no hint."""
        return best(self.table, self.cursor)

    def observe(self, token: int) -> None:
        self.scan(np.array([token]))

    def scan(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each token in turn the hint for it, uint16 (N,), and the context's length, uint8 (N,); then it is observed."""
        hints, orders = np.empty(len(tokens), np.uint16), np.empty(len(tokens), np.uint8)
        done = scan(self.table, self.cursor, tokens, 0, self.limit, hints, orders)
        while done < len(tokens):
            self.table = grown(self.table, self.vocabulary_size, self.limit)
            done = scan(self.table, self.cursor, tokens, done, self.limit, hints, orders)
        return hints, orders


@njit
def best(table, cursor):
    for k in range(cursor.known[0] - 1, 0, -1):
        context = table.nodes[cursor.contexts[k]]
        if context.best_count > 0:
            return np.int64(context.best), k
    return 0, 0


@njit
def scan(table, cursor, tokens, start, limit, hints, orders):
    """Returns where to go on when the table has grown."""
    for i in range(start, len(tokens)):
        if table.used[0] + len(cursor.contexts) > len(table.nodes) < limit:
            return i
        hints[i], orders[i] = best(table, cursor)
        token = np.int64(tokens[i])
        stored = add_longer(table, cursor, find(table, cursor, cursor.known[0], token), token)
        for k in range(stored):
            node, context = table.nodes[cursor.found[k]], table.nodes[cursor.contexts[k]]
            node.count += 1
            if node.count > context.best_count:
                context.best_count, context.best = node.count, token
        advance(cursor, stored)
    return len(tokens)
