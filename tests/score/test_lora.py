"""LoRA adapters against autograd through base + alpha/rank · B·A, and what they leave alone."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from fairway.lm.model import StreamState
from fairway.score.lora import Adapters, adapted_names

TOKENS = torch.tensor([[5, 40, 40, 1, 7, 9, 63, 0, 1, 1, 12, 5]])


def adapters_of(model, targets: list[str], rank: int = 3, alpha: float = 6.0) -> tuple[list[str], Adapters]:
    if "head" in targets:
        model.untie_lm_head()
    names = adapted_names(model, targets)
    return names, Adapters([model.get_parameter(name) for name in names], rank, alpha)


@torch.no_grad()
def shake(adapters: Adapters) -> None:
    generator = torch.Generator().manual_seed(1)
    for factor in adapters.factors():
        factor += 0.3 * torch.randn(factor.shape, generator=generator)
    adapters.merge()


@pytest.mark.parametrize("tied", [True, False])
def test_the_targets_name_their_matrices(tiny, shaken, tied):
    model = shaken(dataclasses.replace(tiny, tied_embeddings=tied, activation="swiglu"))
    counts = {"query": 3, "key": 3, "value": 3, "output": 3, "feed_forward": 9, "head": 1}
    for target, count in counts.items():
        names, _ = adapters_of(model, [target])
        assert len(names) == count and all((target in name) == (target != "head") for name in names)
    assert adapted_names(model, ["head"]) == ["unembedding.weight"]
    assert len(adapted_names(model, list(counts))) == sum(counts.values())


@pytest.mark.parametrize("tied", [True, False])
def test_adapters_with_b_zero_change_no_logit(tiny, shaken, tied):
    model = shaken(dataclasses.replace(tiny, tied_embeddings=tied))
    before = model(TOKENS)
    _, adapters = adapters_of(model, ["query", "key", "value", "output", "feed_forward", "head"])
    adapters.merge()
    assert torch.equal(model(TOKENS), before)
    assert all(a.any() for a in adapters.a) and not any(b.any() for b in adapters.b)


def test_a_merged_layer_is_the_plain_one_and_a_narrow_one_beside_it():
    weight = nn.Parameter(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)))
    base, x = weight.detach().clone(), torch.randn(4, 5, generator=torch.Generator().manual_seed(2))
    adapters = Adapters([weight], rank=2, alpha=3.0)
    shake(adapters)
    expected = x @ base.T + 1.5 * (x @ adapters.a[0].T) @ adapters.b[0].T
    torch.testing.assert_close(F.linear(x, weight), expected)
    assert torch.equal(adapters.bases[0], base)


def test_gradients_are_those_of_autograd_through_the_product(tiny, shaken):
    """Through the whole network, one layer of which runs twice, with the head of its own that a tied network gets."""
    model = shaken(tiny)
    names, adapters = adapters_of(model, ["query", "output", "feed_forward", "head"])
    shake(adapters)
    model.requires_grad_(True)
    F.cross_entropy(model(TOKENS[:, :-1])[0], TOKENS[0, 1:]).backward()
    ours = adapters.gradients([model.get_parameter(name).grad for name in names])
    rows = zip(names, adapters.bases, adapters.a, adapters.b, strict=True)
    merged = {name: base + 2.0 * b @ a for name, base, a, b in rows}
    logits = functional_call(model, merged, (TOKENS[:, :-1],))[0]
    theirs = torch.autograd.grad(F.cross_entropy(logits, TOKENS[0, 1:]), adapters.factors())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        assert one.abs().max() > 1e-4


def test_streaming_runs_through_the_adapters_as_windows_do(tiny, shaken):
    model = shaken(tiny)
    before = model(TOKENS)
    _, adapters = adapters_of(model, ["key", "value", "head"])
    shake(adapters)
    state = StreamState.start(16)
    streamed = torch.cat([model(TOKENS[:, i : i + 1], state) for i in range(TOKENS.shape[1])], dim=1)
    torch.testing.assert_close(streamed, model(TOKENS), atol=1e-4, rtol=1e-4)
    assert (streamed - before).abs().max() > 0.1


def test_the_head_of_a_tied_network_learns_without_the_embedding(tiny, shaken):
    model = shaken(tiny)
    table = model.stream.embedding.weight.detach().clone()
    _, adapters = adapters_of(model, ["head"])
    shake(adapters)
    assert torch.equal(model.stream.embedding.weight, table)
    assert not torch.equal(model.unembedding.weight, table)


def test_a_restart_brings_base_and_factors_back_to_the_bit(tiny, shaken):
    model = shaken(tiny)
    _, adapters = adapters_of(model, ["query", "head"])
    start = [tensor.detach().clone() for tensor in adapters.weights + adapters.factors()]
    shake(adapters)
    assert not any(torch.equal(one, other) for one, other in zip(adapters.weights + adapters.factors(), start, strict=True))
    adapters.restart()
    assert all(torch.equal(one, other) for one, other in zip(adapters.weights + adapters.factors(), start, strict=True))
