"""Scoring each token once: the text runs through the network in blocks, with a rolling key/value cache.

The distribution of a token depends on the tokens before it and on nothing else: a block's targets are looked up in
distributions that were computed from its inputs. The size of a block changes the speed, not the scores (DESIGN 3.2).
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.lm.model import GPT, StreamState
from fairway.score.files import Scores


class Stream:
    """A network part-way through a text."""

    def __init__(self, model: GPT, context: int):
        self.model, self.state = model, StreamState.start(context)

    @torch.no_grad()
    def feed(self, tokens_T: Tensor) -> Tensor:
        """Feed tokens; the log-probabilities (T, V) of what follows each of them."""
        return F.log_softmax(self.model(tokens_T[None], self.state)[0], dim=-1)


def measure(log_probabilities_TV: Tensor, targets_T: Tensor) -> tuple[Tensor, Tensor]:
    """Nats of the targets and entropies of the rows."""
    nats_T = -log_probabilities_TV.gather(1, targets_T[:, None])[:, 0]
    return nats_T, entropy(log_probabilities_TV)


def entropy(log_probabilities_TV: Tensor) -> Tensor:
    return -(log_probabilities_TV.exp() * log_probabilities_TV).sum(-1)


def score_stream(
    model: GPT,
    tokens: np.ndarray,
    context: int,
    block: int,
    advance: Callable[[int], None] = lambda count: None,
    chunk: int | None = None,
    learn: Callable[[np.ndarray], None] = lambda scored: None,
) -> Scores:
    """Score tokens[1:] of a stream in one pass.

    With `chunk`, `learn` is called after each whole chunk of targets except the last with the chunk's tokens, all of
    them scored, and may change the weights. `advance` is told the number of targets scored, for progress.
    """
    stream = Stream(model, context)
    device = next(model.parameters()).device
    targets = len(tokens) - 1
    nats, entropies = [], []
    position = 0
    while position < targets:
        if chunk and position and position % chunk == 0:
            learn(tokens[position - chunk : position + 1])
        to_chunk_end = chunk - position % chunk if chunk else targets
        length = min(block, to_chunk_end, targets - position)
        piece = torch.from_numpy(tokens[position : position + length + 1].astype(np.int64)).to(device)
        for kept, new in zip((nats, entropies), measure(stream.feed(piece[:-1]), piece[1:]), strict=True):
            kept.append(new.float().cpu().numpy())
        position += length
        advance(length)
    return Scores(np.concatenate(nats), np.concatenate(entropies))
