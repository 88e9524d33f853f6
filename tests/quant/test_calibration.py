"""Calibration text: windows, generated text against the network's softmax, and the shares of ranks."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.calibration import generated, random, windows


@pytest.fixture(scope="module")
def model(tiny, shaken):
    """A vocabulary of four, so that all contexts of two tokens can be counted."""
    return shaken(dataclasses.replace(tiny, vocabulary_size=4, bigram_buckets=8))


@given(st.integers(1, 20), st.integers(0, 60), st.integers(1, 13), st.integers(1, 5))
def test_windows_are_evenly_spaced_pieces_of_the_text(length, extra, count, batch):
    text = np.arange(length + extra, dtype=np.uint16)
    batches = list(windows(text, count, length, batch))
    assert all(tokens.dtype == torch.int64 and len(tokens) == batch for tokens in batches[:-1])
    together = torch.cat(batches)
    assert together.shape == (count, length)
    starts = [index * extra // max(count - 1, 1) for index in range(count)]
    assert together.tolist() == [list(range(start, start + length)) for start in starts]


@given(st.integers(1, 11), st.integers(1, 4), st.integers(1, 4))
def test_ranks_share_the_batches_of_one(count, batch, ranks):
    for text in (
        lambda **share: windows(np.arange(100), count, 7, batch, **share),
        lambda **share: random(50, count, 7, batch, seed=3, **share),
    ):
        whole = list(text())
        for rank in range(ranks):
            share = list(text(rank=rank, ranks=ranks))
            assert [tokens.tolist() for tokens in share] == [tokens.tolist() for tokens in whole[rank::ranks]]


def test_ranks_write_the_text_of_one(model):
    whole = list(generated(model, 7, 6, 2, seed=0))
    assert [len(tokens) for tokens in whole] == [2, 2, 2, 1]
    for rank in range(3):
        share = list(generated(model, 7, 6, 2, seed=0, rank=rank, ranks=3))
        assert [tokens.tolist() for tokens in share] == [tokens.tolist() for tokens in whole[rank::3]]


def test_same_seed_same_text_and_no_batch_twice(model):
    for text in (lambda seed: generated(model, 6, 10, 2, seed), lambda seed: random(1000, 6, 10, 2, seed)):
        seeds = [torch.stack(list(text(seed))) for seed in (0, 0, 1)]
        assert torch.equal(seeds[0], seeds[1])
        distinct = {tuple(tokens.flatten().tolist()) for batches in seeds[1:] for tokens in batches}
        assert len(distinct) == 6


def assert_drawn_from(tokens_N: torch.Tensor, probabilities_V: torch.Tensor) -> None:
    """Frequencies within 4.5 standard deviations."""
    frequencies = torch.bincount(tokens_N, minlength=len(probabilities_V)) / len(tokens_N)
    sigma = (probabilities_V * (1 - probabilities_V) / len(tokens_N)).sqrt()
    assert ((frequencies - probabilities_V).abs() < 4.5 * sigma + 1e-9).all()


@pytest.mark.parametrize("temperature", [0.8, 2.0])
def test_each_token_is_drawn_from_the_softmax_given_all_before_it(model, temperature):
    (text,) = generated(model, 30000, 4, 30000, seed=0, temperature=temperature)
    assert_drawn_from(text[:, 0], torch.full((4,), 0.25))
    contexts = torch.cartesian_prod(*[torch.arange(4)] * 3)
    probabilities = (model(contexts).detach() / temperature).softmax(-1)  # (64, 3, 4), without a cache
    for context, after in zip(contexts, probabilities, strict=True):
        for known in (1, 2, 3):
            followed = text[(text[:, :known] == context[:known]).all(1), known]
            if len(followed) > 100:
                assert_drawn_from(followed, after[known - 1])


def test_random_tokens_are_even():
    (text,) = random(10, 1, 20000, 1, seed=0)
    assert_drawn_from(text[0], torch.full((10,), 0.1))


def test_the_caller_keeps_its_gradients_between_batches(model):
    for _ in generated(model, 2, 3, 1, seed=0):
        assert torch.is_grad_enabled()
