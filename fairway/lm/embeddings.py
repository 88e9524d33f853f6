"""The embedding: token table, hashed bigrams, and a gate that mixes the previous token in. embeddings_step.py mirrors it.

Beside it a narrow table of tokens whose projection is added to the values of chosen layers.

At the start of a document (BOS, or the first token of a stream) there is no previous token: the pair has a bucket of
its own and nothing is mixed in, so no document leaks into the next one (the fix that #1797 was sent back for).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairway.lm.config import Architecture


@dataclass
class PreviousToken:
    """What the embedding keeps of a text from chunk to chunk; empty before the first token."""

    token_B: Tensor | None = None
    embedded_BD: Tensor | None = None


class BigramHash(nn.Module):
    """A narrow table addressed by a hash of (previous, current) token, widened by a projection.

    Form "xor" (#549, #885): a bucket of its own for document starts and a learned scale. Form "linear" (#861): neither,
    the token before a start counts as 0.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.buckets = architecture.bigram_buckets
        self.table = nn.Embedding(self.buckets, architecture.bigram_width)
        self.projection = nn.Linear(architecture.bigram_width, architecture.width, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.05)) if architecture.bigram_hash == "xor" else None

    def forward(self, tokens_BT: Tensor, previous_BT: Tensor, starts_BT: Tensor) -> Tensor:
        widened_BTD = self.projection(self.table(self.bucket(tokens_BT, previous_BT, starts_BT)))
        return widened_BTD if self.scale is None else widened_BTD * self.scale

    def bucket(self, tokens, previous, starts):
        """The table row of each bigram; works for tensors and for single numbers."""
        if self.scale is None:
            return (1009 * previous * (starts == 0) + tokens) % self.buckets
        mixed = (36313 * tokens ^ 27191 * previous) % (self.buckets - 1)
        return mixed + (self.buckets - 1 - mixed) * starts


class ValueEmbedding(nn.Module):
    """Tokens (B, T) to what they add to the values (B, T, V), shared by the chosen layers (#549)."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.table = nn.Embedding(architecture.vocabulary_size, architecture.value_embedding_width)
        self.projection = nn.Linear(architecture.value_embedding_width, architecture.kv_width, bias=False)
        self.scale = nn.Parameter(torch.tensor(0.1))

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.projection(self.table(tokens_BT)) * self.scale


class Embedding(nn.Module):
    """Tokens (B, T) to the normalized embeddings (B, T, D) that every block sees as x0."""

    def __init__(self, architecture: Architecture):
        super().__init__()
        self.bos = architecture.bos
        self.embedding = nn.Embedding(architecture.vocabulary_size, architecture.width)
        self.bigram = BigramHash(architecture) if architecture.bigram_buckets else None
        self.smear_gate = nn.Parameter(torch.zeros(architecture.width)) if architecture.smear_gate else None

    def forward(self, tokens_BT: Tensor, previous: PreviousToken | None) -> Tensor:
        starts_BT = tokens_BT == self.bos
        if previous is None or previous.token_B is None:
            starts_BT[:, 0] = True
            before_B1 = tokens_BT[:, :1]
        else:
            before_B1 = previous.token_B[:, None]
        x_BTD = self.embedding(tokens_BT)
        if self.bigram is not None:
            previous_BT = torch.cat((before_B1, tokens_BT[:, :-1]), dim=1)
            x_BTD = x_BTD + self.bigram(tokens_BT, previous_BT, starts_BT)
        x_BTD = F.rms_norm(x_BTD, x_BTD.shape[-1:])
        smeared_BTD = x_BTD if self.smear_gate is None else self._smear(x_BTD, starts_BT, previous)
        if previous is not None:
            previous.token_B, previous.embedded_BD = tokens_BT[:, -1], x_BTD[:, -1]
        return smeared_BTD

    def _smear(self, x_BTD: Tensor, starts_BT: Tensor, previous: PreviousToken | None) -> Tensor:
        known = previous is not None and previous.embedded_BD is not None
        first_B1D = previous.embedded_BD[:, None] if known else torch.zeros_like(x_BTD[:, :1])
        before_BTD = torch.cat((first_B1D, x_BTD[:, :-1]), dim=1)
        gate_BTD = torch.sigmoid(self.smear_gate) * (~starts_BT)[:, :, None]
        return x_BTD + gate_BTD * (before_BTD - x_BTD)
