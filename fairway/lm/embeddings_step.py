"""The embeddings of one token at a time: embeddings.py is the oracle of these steps. Weights are views, as in operations.py.

Shape letters: D width, V = G·N: all values of a token.
"""

import numpy as np

from fairway.lm.embeddings import Embedding, ValueEmbedding
from fairway.lm.operations import ONE, normalized, product, view


class EmbeddingStep:
    """The normalized embeddings of a text, token after token; what the next one needs of a token is kept."""

    def __init__(self, embedding: Embedding):
        self.bigram, self.table_VD = embedding.bigram, view(embedding.embedding.weight)
        if self.bigram is not None:
            self.bigram_table, self.projection = view(self.bigram.table.weight), view(self.bigram.projection.weight)
            self.bigram_scale = view(self.bigram.scale, ONE)
        self.smear_gate = None if embedding.smear_gate is None else view(embedding.smear_gate)
        self.previous, self.before_D = None, np.zeros(self.table_VD.shape[1], np.float32)

    def feed(self, token: int, starts: bool) -> np.ndarray:
        """x0 (D,) of the next token; `starts` is whether a document starts with it."""
        first = self.previous is None
        x_D = self.table_VD[token]
        if self.bigram is not None:
            bucket = self.bigram.bucket(token, 0 if first else self.previous, starts or first)
            x_D = x_D + self.bigram_scale * product(self.projection, self.bigram_table[bucket])
        x_D = normalized(x_D, 1.0)
        before_D, self.before_D, self.previous = self.before_D, x_D, token
        if self.smear_gate is None or starts or first:
            return x_D
        return x_D + (before_D - x_D) / (1 + np.exp(-self.smear_gate))


class ValueEmbeddingStep:
    """What a token adds to the values (V,) of the chosen layers: zeros where the architecture has no value embedding."""

    def __init__(self, embedding: ValueEmbedding | None, kv_width: int):
        self.on, self.nothing_V = embedding is not None, np.zeros(kv_width, np.float32)
        if embedding is not None:
            self.table, self.projection = view(embedding.table.weight), view(embedding.projection.weight)
            self.scale = view(embedding.scale)

    def feed(self, token: int) -> np.ndarray:
        return product(self.projection, self.table[token]) * self.scale if self.on else self.nothing_V
