"""Sliding windows: each target once, each window full, and scores that are the windows' own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.score.windows import score_windows, windows


@given(st.integers(1, 200), st.integers(1, 40), st.data())
def test_each_target_is_scored_once_with_all_the_context_there_is(targets, context, data):
    stride = data.draw(st.integers(1, context))
    found = windows(targets, context, stride)
    assert [target for first, end, _ in found for target in range(first, end)] == list(range(targets))
    for first, end, read in found:
        assert 0 <= read <= first < end and end - first + read == min(context, targets)
        assert first == 0 or (end - first <= stride and read >= context - stride)


def test_published_stride_and_blocks_without_overlap():
    assert windows(10, 4, 2) == [(0, 4, 0), (4, 6, 2), (6, 8, 2), (8, 10, 2)]
    assert windows(12, 4, 4) == [(0, 4, 0), (4, 8, 0), (8, 12, 0)]
    assert windows(3, 4, 2) == [(0, 3, 0)]


@pytest.mark.parametrize(("context", "stride"), [(8, 3), (8, 8), (5, 1), (40, 7)])
@pytest.mark.parametrize("batch", [1, 4, 32])
def test_scores_are_those_of_each_window_alone(tiny, shaken, context, stride, batch):
    """Target i, in the window that ends with it or after it on the grid of strides, sees that window's tokens only."""
    model, told = shaken(tiny), []
    tokens = np.random.default_rng(1).integers(0, 64, 31, dtype=np.uint16)
    scores = score_windows(model, tokens, context, stride, batch, advance=told.append)
    for target in range(30):
        strides = 0 if target < context else 1 + (target - context) // stride
        end = min(context + stride * strides, 30)
        inputs = torch.from_numpy(tokens[max(0, end - context) : target + 1].astype(np.int64))
        log_probabilities = model(inputs[None])[0, -1].detach().double().log_softmax(0).numpy()
        assert scores["nats"][target] == pytest.approx(-log_probabilities[tokens[target + 1]], abs=1e-4)
        by_hand = -sum(math.exp(value) * value for value in log_probabilities)
        assert scores["entropy"][target] == pytest.approx(by_hand, abs=1e-4)
    assert sum(told) == 30


def test_the_head_runs_for_fresh_tokens_only(tiny, shaken):
    model, tokens = shaken(tiny), np.random.default_rng(1).integers(0, 64, 31, dtype=np.uint16)
    head, seen = model.head, []
    model.head = lambda hidden: seen.append(hidden.shape[0]) or head(hidden)
    score_windows(model, tokens, 8, 3, 4)
    assert seen == [0, 8, 12, 9, 1]  # at first none, to learn shapes
