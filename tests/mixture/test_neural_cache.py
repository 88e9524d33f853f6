"""The continuous cache against a softmax in float64, in blocks and step by step; its band; nothing from the future."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.mixture.neural_cache import PIECE, ContinuousCache

V, D, SHARPNESS = 13, 8, 6.0


def stream(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states (count, D) of root mean square 1, as the network's are, and the tokens that follow them."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, D, generator=generator)
    return hidden / hidden.square().mean(1, keepdim=True).sqrt(), torch.randint(V, (count,), generator=generator)


def brute_force(hidden: torch.Tensor, targets: torch.Tensor, tokens: int, sharpness: float = SHARPNESS):
    """Probabilities (T, V) and nearest cosines (T,) of each position, from the formula."""
    rows = (hidden.double() / hidden.double().norm(dim=1, keepdim=True)).numpy()
    probabilities, nearest = np.zeros((len(rows), V)), np.zeros(len(rows))
    for t in range(1, len(rows)):
        past = range(max(0, t - tokens), t)
        cosines = [float(rows[t] @ rows[i]) for i in past]
        for i, cosine in zip(past, cosines, strict=True):
            probabilities[t, targets[i]] += math.exp(sharpness * cosine)
        nearest[t] = max(cosines)
    return probabilities / np.maximum(probabilities.sum(1, keepdims=True), 1e-300), nearest


def in_blocks(hidden, targets, tokens: int, sizes: list[int], sharpness: float = SHARPNESS):
    """`sizes` over and over, until the stream ends."""
    cache, found, start = ContinuousCache(tokens, sharpness, V), [], 0
    while start < len(hidden):
        for size in sizes:
            if start < len(hidden):
                found.append(cache.advance(hidden[start : start + size], targets[start : start + size]))
                start += size
    return torch.cat([probabilities for probabilities, _ in found]), torch.cat([nearest for _, nearest in found])


def step_by_step(hidden, targets, tokens: int):
    cache, found = ContinuousCache(tokens, SHARPNESS, V), []
    for i in range(len(hidden)):
        found.append(cache.look(hidden[i].numpy()))
        cache.remember(hidden[i : i + 1], targets[i : i + 1])
    return torch.tensor(np.stack([probabilities for probabilities, _ in found])), torch.tensor([near for _, near in found])


def assert_alike(ours, expected) -> None:
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), np.asarray(other), atol=1e-6)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 150), min_size=1, max_size=5), st.sampled_from([1, 2, 17, 150, 1000]))
def test_any_split_into_blocks_equals_the_formula(sizes, tokens):
    """Streams many times longer than `tokens`, so that the buffer is moved over again and again."""
    hidden, targets = stream(400)
    assert_alike(in_blocks(hidden, targets, tokens, sizes), brute_force(hidden, targets, tokens))


@pytest.mark.parametrize("tokens", [1, 5, 40, 1000])
def test_looking_step_by_step_equals_the_formula(tokens):
    hidden, targets = stream(300, seed=1)
    assert_alike(step_by_step(hidden, targets, tokens), brute_force(hidden, targets, tokens))


def test_looking_changes_nothing():
    hidden, targets = stream(50)
    curious, plain = ContinuousCache(20, SHARPNESS, V), ContinuousCache(20, SHARPNESS, V)
    for cache in (curious, plain):
        cache.advance(hidden[:40], targets[:40])
    first, again = curious.look(hidden[40].numpy()), curious.look(hidden[40].numpy())
    assert np.array_equal(first[0], again[0]) and first[1] == again[1]
    for one, other in zip(curious.advance(hidden[40:], targets[40:]), plain.advance(hidden[40:], targets[40:]), strict=True):
        assert torch.equal(one, other)


def test_an_empty_block_changes_nothing():
    hidden, targets = stream(50)
    assert_alike(in_blocks(hidden, targets, 20, [0, 30, 0, 20]), in_blocks(hidden, targets, 20, [50]))


def test_all_is_zero_where_nothing_is_remembered():
    hidden, targets = stream(3)
    probabilities, nearest = ContinuousCache(9, SHARPNESS, V).look(hidden[0].numpy())
    assert not probabilities.any() and nearest == 0
    probabilities, nearest = in_blocks(hidden, targets, 9, [3])
    assert not probabilities[0].any() and nearest[0] == 0


def test_probabilities_sum_to_one_and_the_nearest_is_a_cosine():
    """Even where all that is remembered lies in the opposite direction."""
    hidden, targets = stream(300)
    hidden[1:] = -hidden[:1].sign() * hidden[1:].abs()
    probabilities, nearest = in_blocks(hidden, targets, 200, [300], sharpness=500.0)
    torch.testing.assert_close(probabilities[1:].sum(1), torch.ones(299))
    assert probabilities.min() >= 0 and nearest[1] < -0.5 and nearest.abs().max() <= 1 + 1e-6


def test_a_state_that_comes_back_finds_what_followed_it():
    hidden, targets = stream(40)
    hidden[39] = hidden[11]
    probabilities, nearest = in_blocks(hidden, targets, 100, [40], sharpness=200.0)
    assert probabilities[39, targets[11]] > 0.99 and nearest[39] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("tokens", [3, 200])
@pytest.mark.parametrize("changed", [2, 60, 127, 128, 200])
@pytest.mark.parametrize("what", ["token", "state"])
def test_only_positions_after_it_and_within_reach_depend_on_a_position(tokens, changed, what):
    hidden, targets = stream(260)
    others = hidden.clone(), targets.clone()
    if what == "token":
        others[1][changed] = (targets[changed] + 1) % V
    else:
        others[0][changed] = -hidden[changed]
    one, two = in_blocks(hidden, targets, tokens, [260]), in_blocks(*others, tokens, [260])
    differs = (one[0] != two[0]).any(1) | (one[1] != two[1])
    assert not differs[:changed].any() and not differs[changed + tokens + 1 :].any()
    assert differs[changed + 1 : changed + tokens + 1].all()
    assert differs[changed] == (what == "state")  # what follows it is not known yet


def test_sharpness_and_reach_change_the_result():
    hidden, targets = stream(60)
    plain = in_blocks(hidden, targets, 30, [60])[0]
    for other in (in_blocks(hidden, targets, 30, [60], sharpness=7.0)[0], in_blocks(hidden, targets, 29, [60])[0]):
        assert (plain - other).abs().max() > 1e-3


def test_no_more_is_kept_than_twice_the_reach():
    hidden, targets = stream(3000)
    cache = ContinuousCache(100, SHARPNESS, V)
    cache.advance(hidden, targets)
    assert 100 <= cache.end <= len(cache.next_C) <= 2 * 100 + PIECE
