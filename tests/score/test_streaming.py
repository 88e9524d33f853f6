"""Scoring in blocks: what is scored, that blocks do not matter, and when a chunk is learned."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.score.bits import bits_per_byte
from fairway.score.streaming import Stream, entropy, measure, score_stream
from fairway.score.windows import score_windows

TOKENS = np.random.default_rng(0).integers(0, 64, 41, dtype=np.uint16)


def test_bits_per_byte_by_hand():
    """Three targets of 1, 2 and 3 bits over 4 bytes."""
    nats = np.array([1, 2, 3], np.float32) * math.log(2)
    assert bits_per_byte(nats, 4) == pytest.approx(1.5, abs=1e-6)


def test_bits_are_summed_in_float64():
    assert bits_per_byte(np.full(2**24 + 8, math.log(2), np.float32), 2**24 + 8) == pytest.approx(1, abs=1e-7)


def test_measure_looks_targets_up_and_takes_entropies():
    probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    nats, entropies = measure(probabilities.log(), torch.tensor([1, 2]))
    assert nats.tolist() == pytest.approx([math.log(4), -math.log(0.7)])
    by_hand = [1.5 * math.log(2), -sum(p * math.log(p) for p in (0.1, 0.2, 0.7))]
    assert entropies.tolist() == pytest.approx(by_hand)


def test_scores_are_the_surprises_of_a_plain_forward_pass(tiny, shaken):
    """Within the context there is nothing to a stream: −ln softmax of the window's logits at the targets."""
    model = shaken(tiny)
    scores = score_stream(model, TOKENS, context=64, block=64)
    logits = model(torch.from_numpy(TOKENS[:-1].astype(np.int64))[None])[0].detach().double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = [-math.log(probabilities[i, TOKENS[i + 1]]) for i in range(40)]
    np.testing.assert_allclose(scores.nats, expected, atol=1e-5)
    np.testing.assert_allclose(scores.entropy, -(probabilities * np.log(probabilities)).sum(1), atol=1e-5)
    assert scores.nats.dtype == scores.entropy.dtype == np.float32


@pytest.mark.parametrize("stride", [7, 40])
def test_a_stream_equals_windows_within_one_window(tiny, shaken, stride):
    model = shaken(tiny)
    streamed, windowed = score_stream(model, TOKENS, 40, 9), score_windows(model, TOKENS, 40, stride)
    np.testing.assert_allclose(streamed.nats, windowed.nats, atol=1e-5)
    np.testing.assert_allclose(streamed.entropy, windowed.entropy, atol=1e-5)


@settings(max_examples=25)
@given(st.integers(1, 50), st.sampled_from([2, 5, 16, 64]))
def test_the_block_is_a_matter_of_speed(tiny, shaken, block, context):
    model, told = shaken(tiny), []
    single, blocks = score_stream(model, TOKENS, context, 1), score_stream(model, TOKENS, context, block, told.append)
    np.testing.assert_allclose(single.nats, blocks.nats, atol=2e-5)
    np.testing.assert_allclose(single.entropy, blocks.entropy, atol=2e-5)
    assert sum(told) == 40 and max(told) <= block


def test_the_context_counts(tiny, shaken):
    model = shaken(tiny)
    near, far = (score_stream(model, TOKENS, context, 8).nats for context in (4, 16))
    np.testing.assert_allclose(near[:4], far[:4], atol=1e-5)
    assert np.abs(near[4:] - far[4:]).max() > 0.01


@pytest.mark.parametrize(
    ("targets", "chunk", "learned"),
    [(40, 15, [(0, 15), (15, 30)]), (30, 15, [(0, 15)]), (31, 15, [(0, 15), (15, 30)]), (15, 15, []), (14, 15, [])],
)
def test_every_whole_chunk_but_the_last_is_learned_once_it_is_scored(tiny, shaken, targets, chunk, learned):
    """`learn` gets a chunk's tokens with the one before them, when the chunk's targets are scored and no later one."""
    events = []
    tokens = TOKENS[: targets + 1]
    score_stream(shaken(tiny), tokens, 16, 4, events.append, chunk, lambda scored: events.append(scored.tolist()))
    assert [event for event in events if isinstance(event, list)] == [tokens[a : b + 1].tolist() for a, b in learned]
    scored = 0
    for event in events:
        if isinstance(event, list):
            assert scored % chunk == 0 and event == tokens[scored - chunk : scored + 1].tolist()
        else:
            scored += event
    assert scored == targets


def test_feeding_keeps_no_gradients_and_entropy_is_at_most_uniform(tiny, shaken):
    log_probabilities = Stream(shaken(tiny), 8).feed(torch.arange(5))
    assert not log_probabilities.requires_grad and log_probabilities.shape == (5, 64)
    torch.testing.assert_close(log_probabilities.exp().sum(1), torch.ones(5))
    assert entropy(log_probabilities).max() < math.log(64)
