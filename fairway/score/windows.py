"""Sliding windows, the published way to score (#549 and after): kept for comparing with published numbers.

Each window re-reads up to `context` tokens and scores only those that no window before it has scored; with stride equal
to context the windows do not overlap, which is how the challenge's round-trip scores are made. Windows look over
document starts, as published.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from fairway.lm.model import GPT
from fairway.score.streaming import Piece, no_scores, rows, side_by_side, target_scores


def windows(targets: int, context: int, stride: int) -> list[Piece]:
    """The windows of a text. The last one ends with it, and scores what is left."""
    ends = [*range(context, targets, stride), targets]
    return [Piece(0, ends[0], 0), *(Piece(first, end, context - (end - first)) for first, end in pairwise(ends))]


@torch.no_grad()
def score_windows(
    model: GPT,
    tokens: np.ndarray,
    context: int,
    stride: int,
    batch: int = 32,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, np.ndarray]:
    """What streaming.target_scores keeps of each target of a text, float32, one array a name."""
    measure = target_scores(model, tokens)
    scores = no_scores(model, measure, len(tokens) - 1)
    for group in side_by_side(windows(len(tokens) - 1, context, stride), batch):
        targets = slice(group[0].first, group[-1].end)  # those of neighbours follow each other
        for name, values in measure(fresh(model, tokens, group), targets).items():
            scores[name][targets] = values
        advance(targets.stop - targets.start)
    return {name: values.cpu().numpy() for name, values in scores.items()}


def fresh(model: GPT, tokens: np.ndarray, group: list[Piece]) -> Tensor:
    """The hidden states that predict all that a batch of windows scores, in order (targets, D)."""
    spans = [(piece.first - piece.read, piece.end) for piece in group]
    hidden_BTD = model.hidden(rows(tokens, spans, next(model.parameters()).device))
    return hidden_BTD[:, -(group[0].end - group[0].first) :].flatten(0, 1)
