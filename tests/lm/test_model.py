"""The whole network against a plain re-implementation of its specification, one position at a time in float64.

The oracle is written from the published description of #549, #885 and #1185 with loops
and lists, without the network's code; streaming, windows and contexts shorter than the text are all held to it.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.lm.model import GPT, StreamState, linear_names

HANDED_OVER = {1: {}, 2: {1: 0}, 3: {1: 0}, 4: {2: 1, 3: 0}, 11: {5: 4, 6: 3, 7: 2, 8: 1, 9: 0}}  # to layer: from layer


def rms_norm(x):
    return x / np.sqrt(np.mean(x * x) + np.finfo(np.float32).eps)


def turned(x, position, a):
    """Rotary embedding of one head's vector, pair by pair."""
    half, y = a.rope_dims // 2, x.copy()
    for i in range(half):
        angle = position * a.rope_base ** (-2 * i / a.rope_dims)
        y[i] = x[i] * math.cos(angle) + x[i + half] * math.sin(angle)
        y[i + half] = x[i + half] * math.cos(angle) - x[i] * math.sin(angle)
    return y


def embedded(w, a, tokens):
    """x0 of every position."""
    rows = []
    for t, token in enumerate(tokens):
        row = w["stream.embedding.weight"][token]
        start = t == 0 or token == a.bos
        if a.bigram_buckets:
            last = a.bigram_buckets - 1
            bucket = last if start else (36313 * token ^ 27191 * tokens[t - 1]) % last
            wide = w["stream.bigram.projection.weight"] @ w["stream.bigram.table.weight"][bucket]
            row = row + wide * w["stream.bigram.scale"]
        rows.append(rms_norm(row))
    if not a.smear_gate:
        return rows
    gate = 1 / (1 + np.exp(-w["stream.smear_gate"]))
    starts = [t == 0 or token == a.bos for t, token in enumerate(tokens)]
    return [rows[t] if starts[t] else (1 - gate) * rows[t] + gate * rows[t - 1] for t in range(len(tokens))]


def attended(w, a, layer, normed, context):
    """Attention output of every position: queries, keys, values head by head."""
    name, N, per_group = f"blocks.{layer}.attention.", a.width // a.heads, a.heads // a.kv_heads
    q = [(w[name + "query.weight"] @ x).reshape(a.heads, N) for x in normed]
    k = [(w[name + "key.weight"] @ x).reshape(a.kv_heads, N) for x in normed]
    v = [(w[name + "value.weight"] @ x).reshape(a.kv_heads, N) for x in normed]
    outputs = []
    for t in range(len(normed)):
        mixed = []
        for head in range(a.heads):
            group = head // per_group
            query = turned(rms_norm(q[t][head]), t, a) * w[name + "query_gain"][head]
            seen = range(max(0, t - context + 1), t + 1)
            scores = np.array([query @ turned(rms_norm(k[s][group]), s, a) / math.sqrt(N) for s in seen])
            weights = np.exp(scores - scores.max())
            y = sum(weight * v[s][group] for weight, s in zip(weights / weights.sum(), seen, strict=True))
            if layer >= a.layers - a.xsa_layers:
                own = v[t][group] / np.linalg.norm(v[t][group])
                y = y - (y @ own) * own
            mixed.append(y)
        outputs.append(w[name + "output.weight"] @ np.concatenate(mixed))
    return outputs


def oracle(model, tokens, context=10**9):
    """Logits (T, V) of the specification, in float64."""
    a, w = model.architecture, {name: tensor.detach().double().numpy() for name, tensor in model.named_parameters()}
    x0 = embedded(w, a, tokens)
    x, outputs = x0, []
    handed_over = HANDED_OVER[a.layers] if a.unet_skips else {}
    for layer in range(a.layers):
        name = f"blocks.{layer}."
        if layer in handed_over:
            weight = w["skip_weights"][sorted(handed_over).index(layer)]
            x = [here + weight * there for here, there in zip(x, outputs[handed_over[layer]], strict=True)]
        keep, again = w[name + "residual_mix"]
        x = [keep * here + again * start for here, start in zip(x, x0, strict=True)]
        depth = 1 / math.sqrt(layer + 1)
        y = attended(w, a, layer, [rms_norm(here) * depth for here in x], context)
        x = [here + w[name + "attention_scale"] * there for here, there in zip(x, y, strict=True)]
        up = [w[name + "feed_forward.up.weight"] @ (rms_norm(here) * depth) for here in x]
        squared = [np.where(wide > 0, wide, a.leaky_slope * wide) ** 2 for wide in up]
        down = [w[name + "feed_forward.down.weight"] @ wide for wide in squared]
        x = [here + w[name + "feed_forward_scale"] * there for here, there in zip(x, down, strict=True)]
        outputs.append(x)
    z = np.stack([w["stream.embedding.weight"] @ rms_norm(here) for here in x])
    return a.logit_softcap * np.tanh(z / a.logit_softcap)


TOKENS = [5, 40, 40, 1, 7, 9, 63, 0, 1, 1, 12, 5]
CHANGES = [
    {},
    {"layers": 1},
    {"layers": 4},
    {"layers": 11, "width": 16, "heads": 2, "xsa_layers": 4},
    {"width": 48},
    {"heads": 2},
    {"kv_heads": 4},
    {"kv_heads": 1},
    {"mlp_multiple": 1.5},
    {"leaky_slope": 0.0},
    {"rope_dims": 8},
    {"rope_dims": 0},
    {"rope_base": 10000.0},
    {"qk_gain": 3.0},
    {"xsa_layers": 0},
    {"xsa_layers": 3},
    {"unet_skips": False},
    {"bigram_buckets": 0},
    {"bigram_buckets": 7},
    {"bigram_width": 8},
    {"smear_gate": False},
    {"logit_softcap": 3.0},
    {"bos": 40},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_network_equals_its_specification_and_every_param_counts(tiny, shaken, changes):
    model = shaken(dataclasses.replace(tiny, **changes))
    logits = model(torch.tensor([TOKENS]))[0].detach().numpy()
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, oracle(model, TOKENS), atol=2e-4, rtol=1e-4)
    if changes:
        unchanged = shaken(tiny)(torch.tensor([TOKENS]))[0].detach().numpy()
        assert np.abs(logits - unchanged).max() > 1e-2


def test_rows_of_a_batch_do_not_meet(tiny, shaken):
    model = shaken(tiny)
    rows = torch.tensor([TOKENS, TOKENS[::-1]])
    together = model(rows)
    for row in range(2):
        torch.testing.assert_close(together[row], model(rows[row : row + 1])[0], atol=1e-5, rtol=1e-5)


def stream(model, tokens, context, lengths) -> torch.Tensor:
    """Logits (T, V) of tokens fed in blocks of the given lengths."""
    state, pieces, at = StreamState.start(context), [], 0
    for length in lengths:
        pieces.append(model(torch.tensor([tokens[at : at + length]]), state)[0])
        at += length
    assert at == len(tokens) == state.cache.position
    return torch.cat(pieces).detach()


partitions = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@given(partitions, st.integers(0, 3), st.randoms(use_true_random=False))
def test_a_stream_within_its_context_equals_one_window(tiny, shaken, lengths, spare, random):
    model = shaken(tiny)
    tokens = [random.randrange(64) for _ in range(sum(lengths))]
    streamed = stream(model, tokens, max(2, len(tokens) + spare), lengths)
    torch.testing.assert_close(streamed, model(torch.tensor([tokens]))[0].detach(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("context", [2, 3, 5, 11])
@pytest.mark.parametrize("lengths", [[12], [1] * 12, [4, 1, 7], [6, 6]], ids=str)
def test_a_stream_beyond_its_context_equals_a_band_in_every_layer(tiny, shaken, context, lengths):
    model = shaken(tiny)
    expected = oracle(model, TOKENS, context)
    np.testing.assert_allclose(stream(model, TOKENS, context, lengths).numpy(), expected, atol=2e-4, rtol=1e-4)
    assert np.abs(expected - oracle(model, TOKENS)).max() > 1e-2


@pytest.mark.parametrize("changed", range(len(TOKENS)))
def test_a_token_changes_no_logit_before_its_own(tiny, shaken, changed):
    model = shaken(tiny)
    other = [*TOKENS]
    other[changed] = 33
    for logits in (lambda tokens: model(torch.tensor([tokens]))[0], lambda tokens: stream(model, tokens, 5, [5, 7])):
        difference = (logits(TOKENS) - logits(other)).abs().amax(dim=1)
        assert difference[:changed].max().item() < 1e-6 if changed else True
        assert difference[changed] > 1e-2


def test_initialise_is_decided_by_its_seed(tiny):
    states = []
    for seed in (3, 3, 4):
        model = GPT(tiny)
        model.initialise(seed)
        states.append(b"".join(model.state_dict()[name].numpy().tobytes() for name in sorted(model.state_dict())))
    assert states[0] == states[1] != states[2]


def test_at_initialisation_every_block_is_the_identity(tiny):
    """What leaves the network is x0 (doubled by a skip, which the final norm undoes); pairs add nothing yet."""
    model = GPT(tiny)
    model.initialise(0)
    tokens = torch.tensor([TOKENS])
    x0 = model.stream(tokens, None)
    torch.testing.assert_close(model.hidden(tokens), torch.nn.functional.rms_norm(x0, (32,)), atol=1e-5, rtol=1e-5)
    assert not model.stream.bigram.table.weight.any()


def test_at_initialisation_matrices_are_orthogonal_and_the_embedding_small(tiny):
    model = GPT(tiny)
    model.initialise(0)
    for weight in (model.blocks[0].attention.query.weight, model.blocks[2].attention.key.weight):
        torch.testing.assert_close(weight @ weight.mT, torch.eye(len(weight)), atol=1e-5, rtol=0)
    up = model.blocks[1].feed_forward.up.weight
    torch.testing.assert_close(up.mT @ up, torch.eye(32), atol=1e-5, rtol=0)
    assert 0.0045 < model.stream.embedding.weight.std() < 0.0055
    assert torch.equal(model.blocks[0].attention.query_gain, torch.full((4,), 1.5))


def test_linear_names_are_the_weights_of_linear_layers_in_order(tiny):
    names = linear_names(GPT(dataclasses.replace(tiny, layers=1, xsa_layers=0)))
    attention = [f"blocks.0.attention.{name}.weight" for name in ("query", "key", "value", "output")]
    feed_forward = ["blocks.0.feed_forward.up.weight", "blocks.0.feed_forward.down.weight"]
    assert names == ["stream.bigram.projection.weight", *attention, *feed_forward]
