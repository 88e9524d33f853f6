"""Sliding windows, the published way to score (#549 and after): kept for comparing with published numbers.

Each window re-reads up to `context` tokens and scores only those that no window before it has scored; with stride equal
to context the windows do not overlap, which is how the challenge's round-trip scores are made.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from fairway.lm.model import GPT
from fairway.score.files import Scores
from fairway.score.streaming import measure


def spans(targets: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, first, end) of each window: it reads inputs start…end − 1 and scores targets first…end − 1, each once."""
    result = [(0, 0, min(context, targets))]
    while result[-1][2] < targets:
        first = result[-1][2]
        end = min(first + stride, targets)
        result.append((end - context, first, end))
    return result


@torch.no_grad()
def score_windows(
    model: GPT,
    tokens: np.ndarray,
    context: int,
    stride: int,
    batch: int = 32,
    advance: Callable[[int], None] = lambda count: None,
) -> Scores:
    """Score tokens[1:] of a stream; windows of equal length are scored `batch` at a time."""
    device = next(model.parameters()).device
    targets = len(tokens) - 1
    nats, entropies = np.empty(targets, np.float32), np.empty(targets, np.float32)
    every = spans(targets, context, stride)
    for index in range(0, len(every), batch):
        group = every[index : index + batch]
        length = group[0][2] - group[0][0]
        windows = np.stack([tokens[start : start + length + 1] for start, _, _ in group]).astype(np.int64)
        windows = torch.from_numpy(windows).to(device)
        log_probabilities = F.log_softmax(model(windows[:, :-1]), dim=-1)
        for row, (start, first, end) in enumerate(group):
            fresh = slice(first - start, end - start)
            measured = measure(log_probabilities[row, fresh], windows[row, 1:][fresh])
            nats[first:end], entropies[first:end] = (values.float().cpu().numpy() for values in measured)
        advance(sum(end - first for _, first, end in group))
    return Scores(nats, entropies)
