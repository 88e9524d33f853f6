"""Sliding windows, the published way to score (#549 and after): kept for comparing with published numbers.

Each window re-reads up to `context` tokens and scores only those that no window before it has scored; with stride equal
to context the windows do not overlap, which is how the challenge's round-trip scores are made. Windows look over
document starts, as published. Unlike there, the head sees only the tokens that a window scores.
"""

from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairway.lm.model import GPT
from fairway.score.streaming import Measure, no_scores, rows, target_scores


class Window(NamedTuple):
    """Reads inputs start … end − 1 and scores targets first … end − 1, each in one window only."""

    start: int
    first: int
    end: int


def spans(targets: int, context: int, stride: int) -> list[Window]:
    """The windows of a text. The last one ends with it, and scores what is left."""
    result = [Window(0, 0, min(context, targets))]
    while result[-1].end < targets:
        first = result[-1].end
        end = min(first + stride, targets)
        result.append(Window(end - context, first, end))
    return result


def batches(windows: list[Window], batch: int) -> list[list[Window]]:
    """Neighbours of one shape, at most `batch` together."""
    groups = [
        list(alike) for _, alike in groupby(windows, key=lambda window: (window.end - window.start, window.end - window.first))
    ]
    return [group[start : start + batch] for group in groups for start in range(0, len(group), batch)]


@torch.no_grad()
def score_windows(
    model: GPT,
    tokens: np.ndarray,
    context: int,
    stride: int,
    batch: int = 32,
    measure: Measure | None = None,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, np.ndarray]:
    """What `measure` keeps of each target of a text (`target_scores` by default), float32, one array a name."""
    measure = measure or target_scores(model, tokens)
    scores = no_scores(model, measure, len(tokens) - 1)
    for group in batches(spans(len(tokens) - 1, context, stride), batch):
        targets = slice(group[0].first, group[-1].end)  # those of neighbours follow each other
        for name, values in measure(fresh(model, tokens, group), targets).items():
            scores[name][targets] = values
        advance(targets.stop - targets.start)
    return {name: values.cpu().numpy() for name, values in scores.items()}


def fresh(model: GPT, tokens: np.ndarray, group: list[Window]) -> Tensor:
    """The hidden states that predict all that a batch of windows scores, in order (targets, D)."""
    hidden_BTD = model.hidden(rows(tokens, [(start, end) for start, _, end in group], next(model.parameters()).device))
    return hidden_BTD[:, -(group[0].end - group[0].first) :].flatten(0, 1)
