"""The whole network against its specification, one position at a time in float64 (specification.py).

Every option is held to it: in windows, in streams of any blocks, with contexts shorter than the text; and in none does
a token change what comes before it. What each option does beside that is in test_options.py.
"""

import dataclasses

import numpy as np
import pytest
import specification
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.lm.model import GPT, StreamState

TOKENS = [5, 40, 40, 1, 7, 9, 63, 0, 1, 1, 12, 5]
SINGLE = {"layers": 1, "value_embedding_layers": [0], "recurrence_layers": [0]}
OTHER = {  # most of what the tiny network is not
    "kv_heads": 4,
    "activation": "swiglu",
    "gated_attention": False,
    "value_embedding_layers": [1],
    "unet_skips": "plain",
    "recurrence": "append",
    "recurrence_layers": [-2, -1],
    "recurrence_passes": 3,
    "mod_layers": [0, -1],
    "bigram_hash": "linear",
    "tied_embeddings": False,
}
CHANGES = [
    {},
    OTHER,
    SINGLE,
    SINGLE | {"recurrence": "none"},
    {"layers": 4},
    {"layers": 11, "width": 16, "heads": 2, "xsa_layers": 4, "recurrence_layers": [4, 5]},
    {"width": 48},
    {"heads": 2},
    {"kv_heads": 4},
    {"kv_heads": 1},
    {"mlp_multiple": 1.5},
    {"activation": "leaky_relu2"},
    {"activation": "swiglu"},
    {"activation": "square_glu"},
    {"leaky_slope": 0.0},
    {"rope_dims": 8},
    {"rope_dims": 0},
    {"rope_base": 10000.0},
    {"rope_base_length": 0},
    {"rope_base_length": 4},
    {"sequence_length": 64},
    {"qk_gain": 3.0},
    {"xsa_layers": 0},
    {"xsa_layers": 3},
    {"gated_attention": False},
    {"value_residual": False},
    {"value_embedding_layers": []},
    {"value_embedding_layers": [1], "value_embedding_width": 5},
    {"unet_skips": "none"},
    {"unet_skips": "plain"},
    {"residual_mix": False},
    {"depth_scale": False},
    {"recurrence": "none"},
    {"recurrence": "append"},
    {"recurrence": "append", "unet_skips": "plain", "recurrence_layers": [0, 1], "recurrence_passes": 3},
    {"recurrence_layers": [-3, -2, -1]},
    {"recurrence_passes": 3},
    {"mod_layers": [1]},
    {"mod_layers": [0, 1, 2], "activation": "square_glu"},
    {"bigram_hash": "linear"},
    {"bigram_buckets": 0},
    {"bigram_buckets": 7},
    {"bigram_width": 8},
    {"smear_gate": False},
    {"tied_embeddings": False},
    {"logit_softcap": 3.0},
    {"bos": 40},
]


@pytest.fixture(params=CHANGES, ids=str)
def model(request, tiny, shaken) -> GPT:
    return shaken(dataclasses.replace(tiny, **request.param))


def window(model: GPT, tokens: list[int], recurrent: bool = True) -> torch.Tensor:
    """Logits (T, V)."""
    return model(torch.tensor([tokens]), recurrent=recurrent)[0].detach()


def stream(model: GPT, tokens: list[int], context: int, lengths: list[int], recurrent: bool = True) -> torch.Tensor:
    """Logits (T, V) of tokens fed in blocks of the given lengths."""
    state, pieces, at = StreamState.start(context), [], 0
    for length in lengths:
        pieces.append(model(torch.tensor([tokens[at : at + length]]), state, recurrent)[0])
        at += length
    assert at == len(tokens) == state.cache.position
    return torch.cat(pieces).detach()


def assert_near(found: torch.Tensor, expected: np.ndarray) -> None:
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4, rtol=0)


def test_a_window_equals_the_specification(model):
    assert_near(window(model, TOKENS), specification.logits(model, TOKENS))


def test_a_stream_beyond_its_context_equals_a_band_in_every_layer(model):
    expected = specification.logits(model, TOKENS, context=5)
    for lengths in ([12], [1] * 12, [4, 1, 7], [6, 6]):
        assert_near(stream(model, TOKENS, 5, lengths), expected)
    assert np.abs(expected - specification.logits(model, TOKENS)).max() > 1e-2


@pytest.mark.parametrize("recurrence", [{}, {"recurrence": "append"}, {"unet_skips": "plain", "recurrence_passes": 3}], ids=str)
def test_before_the_recurrence_is_switched_on_layers_run_once(tiny, shaken, recurrence):
    model = shaken(dataclasses.replace(tiny, **recurrence))
    again = window(model, TOKENS)
    once = specification.logits(model, TOKENS, recurrent=False)
    assert_near(window(model, TOKENS, recurrent=False), once)
    assert_near(stream(model, TOKENS, 99, [4, 1, 7], recurrent=False), once)
    assert np.abs(again.numpy() - once).max() > 1e-2


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_a_token_changes_no_logit_before_its_own(model, training):
    model.train(training)
    logits = window(model, TOKENS)
    for changed in (0, 3, 6, 11):
        other = [*TOKENS]
        other[changed] = 33
        difference = (logits - window(model, other)).abs().amax(dim=1)
        assert not difference[:changed].gt(1e-6).any()
        assert difference[changed] > 1e-2


@pytest.mark.parametrize("changed", range(len(TOKENS)))
def test_in_a_stream_a_token_changes_no_logit_before_its_own(tiny, shaken, changed):
    model = shaken(tiny)
    other = [*TOKENS]
    other[changed] = 33
    difference = (stream(model, TOKENS, 5, [5, 7]) - stream(model, other, 5, [5, 7])).abs().amax(dim=1)
    assert not difference[:changed].gt(1e-6).any()
    assert difference[changed] > 1e-2


@pytest.mark.parametrize("different", [{}, OTHER], ids=["tiny", "other"])
def test_rows_of_a_batch_do_not_meet(tiny, shaken, different):
    model = shaken(dataclasses.replace(tiny, **different))
    for training in (False, True):
        together = model.train(training)(torch.tensor([TOKENS, TOKENS[::-1]])).detach()
        torch.testing.assert_close(together[0], window(model, TOKENS), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(together[1], window(model, TOKENS[::-1]), atol=1e-5, rtol=1e-5)


partitions = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@pytest.mark.parametrize("different", [{}, OTHER], ids=["tiny", "other"])
@settings(max_examples=15)
@given(partitions, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_stream_within_its_context_equals_one_window(tiny, shaken, different, lengths, spare, random):
    model = shaken(dataclasses.replace(tiny, **different))
    tokens = [random.randrange(64) for _ in range(sum(lengths))]
    streamed = stream(model, tokens, max(2, len(tokens) + spare), lengths)
    torch.testing.assert_close(streamed, window(model, tokens), atol=1e-4, rtol=1e-4)


def test_initialise_is_decided_by_its_seed(tiny):
    states = []
    for seed in (3, 3, 4):
        model = GPT(tiny)
        model.initialise(seed)
        states.append(b"".join(model.state_dict()[name].numpy().tobytes() for name in sorted(model.state_dict())))
    assert states[0] == states[1] != states[2]


@pytest.mark.parametrize("different", [{}, OTHER], ids=["tiny", "other"])
def test_at_initialisation_every_block_is_the_identity(tiny, different):
    """What leaves the network is x0, a multiple of it with plain skips, which the final norm undoes; pairs add nothing yet."""
    model = GPT(dataclasses.replace(tiny, **different))
    model.initialise(0)
    tokens = torch.tensor([TOKENS])
    x0 = model.stream(tokens, None)
    torch.testing.assert_close(model.hidden(tokens), torch.nn.functional.rms_norm(x0, (32,)), atol=1e-5, rtol=1e-5)
    model.stream.bigram = None
    assert torch.equal(model.stream(tokens, None), x0)


def test_at_initialisation_matrices_are_orthogonal_and_tables_small(tiny):
    model = GPT(dataclasses.replace(tiny, activation="swiglu"))
    model.initialise(0)
    for weight in (model.blocks[0].attention.query.weight, model.blocks[2].attention.key.weight):
        torch.testing.assert_close(weight @ weight.mT, torch.eye(len(weight)), atol=1e-5, rtol=0)
    for wide in (model.blocks[1].feed_forward.up.weight, model.blocks[1].feed_forward.gate.weight):
        torch.testing.assert_close(wide.mT @ wide, torch.eye(32), atol=1e-5, rtol=0)
    assert 0.0045 < model.stream.embedding.weight.std() < 0.0055
    assert 0.009 < model.value_embedding.table.weight.std() < 0.011
    assert torch.equal(model.blocks[0].attention.query_gain, torch.full((4,), 1.5))
