"""The network a token at a time, in compiled loops, held to PyTorch's blocks: for every option of the architecture."""

import dataclasses

import numpy as np
import pytest
import torch

from fairway.lm.config import Architecture
from fairway.lm.decoder import Decoder
from fairway.lm.model import GPT, StreamState

TOKENS = np.array([5, 40, 40, 1, 7, 9, 63, 0, 1, 1, 12, 5, 2, 40, 40, 3, 9, 9, 1, 30])  # BOS is 1
OPTIONS = [
    {},
    {"activation": "leaky_relu2"},
    {"activation": "swiglu"},
    {"activation": "square_glu"},
    {"rope_dims": 0},
    {"rope_dims": 8},
    {"sequence_length": 64},
    {"heads": 2, "kv_heads": 2},
    {"kv_heads": 1},
    {"xsa_layers": 0},
    {"xsa_layers": 3},
    {"gated_attention": False},
    {"value_residual": False},
    {"value_embedding_layers": []},
    {"unet_skips": "none"},
    {"unet_skips": "plain"},
    {"residual_mix": False},
    {"depth_scale": False},
    {"recurrence": "none"},
    {"recurrence": "append", "recurrence_passes": 3},
    {"mod_layers": [1, 2]},
    {"bigram_hash": "linear"},
    {"bigram_buckets": 0},
    {"smear_gate": False},
    {"tied_embeddings": False},
]


@torch.no_grad()
def expected(model: GPT, context: int, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states and logits by PyTorch, all tokens in one block."""
    hidden_TD = model.hidden(torch.from_numpy(TOKENS)[None], StreamState.start(context, reset))[0]
    return hidden_TD.numpy(), model.head(hidden_TD).numpy()


def stepped(model: GPT, context: int, reset: bool) -> tuple[np.ndarray, np.ndarray]:
    steps = Decoder(model, context, reset)
    hidden_TD = np.stack([steps.feed(token) for token in TOKENS.tolist()])
    return hidden_TD, np.stack([steps.logits(hidden_D) for hidden_D in hidden_TD])


def assert_alike(model: GPT, context: int = 100, reset: bool = False) -> None:
    for ours, theirs in zip(stepped(model, context, reset), expected(model, context, reset), strict=True):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.parametrize("changes", OPTIONS, ids=str)
def test_steps_equal_blocks(tiny: Architecture, shaken, changes):
    assert_alike(shaken(dataclasses.replace(tiny, **changes)))


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("context", [1, 2, 5, 19, 20])
def test_any_context_with_documents_apart_or_not(tiny, shaken, context, reset):
    assert_alike(shaken(tiny), context, reset)


def test_the_router_sends_some_tokens_through_and_others_not(tiny, shaken):
    """Or the agreement above would say nothing of one kind."""
    model, passed = shaken(dataclasses.replace(tiny, mod_layers=[1, 2])), []
    for layer in (1, 2):
        model.blocks[layer].feed_forward.register_forward_hook(lambda _, given, __: passed.append(given[0].shape[1]))
    expected(model, 100, False)
    assert all(0 < tokens < len(TOKENS) for tokens in passed)


def test_weights_that_change_in_place_are_seen(tiny, shaken):
    """Every parameter, scalars too: a view that was a copy would go on with the old value."""
    model, other = shaken(tiny), shaken(tiny, seed=1)
    steps = Decoder(model, 100, False)
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), other.parameters(), strict=True):
            parameter.copy_(value)
    hidden_TD = np.stack([steps.feed(token) for token in TOKENS.tolist()])
    np.testing.assert_allclose(hidden_TD, expected(other, 100, False)[0], atol=5e-5)


def test_the_same_tokens_give_the_same_bits(tiny, shaken):
    """A decoder repeats the encoder's arithmetic in another process."""
    one, other = (stepped(shaken(tiny), 7, True) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
