"""Curvatures against explicit sums per window, against the divergence that errors actually cause, and over ranks."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairway.quant.calibration import generated, random
from fairway.quant.hessian import Curvature, collect, draw_labels, evenly_spaced

VARIANTS = {
    "tied, insert": {},
    "untied, append": {"tied_embeddings": False, "recurrence": "append", "recurrence_layers": [1, 2]},
    "routed": {"recurrence": "none", "mod_layers": [0, 1], "activation": "swiglu"},
    "routed twice": {"mod_layers": [1], "tied_embeddings": False, "bigram_hash": "linear"},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def model(request, tiny, shaken):
    return shaken(dataclasses.replace(tiny, **request.param))


def batches(count: int = 2, seed: int = 1) -> list[torch.Tensor]:
    """Three windows of 12 tokens a batch, the last batch shorter."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 64, (3 - index // (count - 1), 12), generator=generator) for index in range(count)]


def uses_of(model, window_1T, labels_T) -> dict[str, list]:
    """(inputs, gradient of the outputs) of each call of each layer and table; a single window needs no padding."""
    calls = {}
    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: calls.setdefault(f"{name}.weight", []).append((inputs[0], output))
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Embedding)
    ]
    hidden = model.hidden(window_1T)
    for handle in handles:
        handle.remove()
    head = "stream.embedding.weight" if model.unembedding is None else "unembedding.weight"
    logits = hidden @ model.get_parameter(head).T
    calls[head] = [(hidden, logits)]
    loss = F.nll_loss(F.log_softmax(model.capped(logits)[0], -1), labels_T, reduction="sum")
    flat = [(name, x.detach(), y) for name, pairs in calls.items() for x, y in pairs]
    gradients = torch.autograd.grad(loss, [y for _, _, y in flat])
    uses = {}
    for (name, x, _), gradient in zip(flat, gradients, strict=True):
        uses.setdefault(name, []).extend(zip(x.flatten(0, 1), gradient.double().flatten(0, 1), strict=True))
    return uses


def explicit(model, seed: int = 0) -> dict[str, Curvature]:
    """By definition, one use at a time."""
    uses, tokens = {}, 0
    for tokens_BT in batches():
        labels = draw_labels(model(tokens_BT).flatten(0, 1), tokens_BT, seed).view(tokens_BT.shape)
        for window, labels_T in zip(tokens_BT, labels, strict=True):
            tokens += len(window)
            for name, pairs in uses_of(model, window[None], labels_T).items():
                uses.setdefault(name, []).extend(pairs)
    found = {}
    for name, pairs in uses.items():
        if pairs[0][0].ndim:  # a vector goes in: a layer
            columns = sum(torch.outer(x.double(), x.double()) for x, _ in pairs) / len(pairs)
            rows = sum(gradient**2 for _, gradient in pairs) / tokens
        else:
            columns = sum(torch.outer(gradient, gradient) for _, gradient in pairs) / len(pairs)
            rows = F.one_hot(torch.stack([row for row, _ in pairs]), len(model.get_parameter(name))).sum(0) / tokens
        found[name] = Curvature(columns, rows.double())
    return found


def assert_close(found: dict[str, Curvature], expected: dict[str, Curvature], rtol: float) -> None:
    assert found.keys() == expected.keys()
    for name, curvature in expected.items():
        for part, other in ((curvature.hessian_CC, found[name].hessian_CC), (curvature.fisher_R, found[name].fisher_R)):
            assert other.dtype == torch.float64
            torch.testing.assert_close(other, part, rtol=rtol, atol=rtol * part.abs().max().item(), msg=name)


def test_sums_over_uses_written_out(model):
    assert_close(collect(model, batches()), explicit(model), 2e-4)


def test_every_matrix_of_layers_and_tables_in_the_order_of_the_network(model):
    found = collect(model, batches())
    assert list(found) == [name for name, _ in model.named_parameters() if name.endswith(".weight")]
    for name, curvature in found.items():
        R, C = model.get_parameter(name).shape
        assert curvature.hessian_CC.shape == (C, C) and curvature.fisher_R.shape == (R,)


def test_rows_of_the_head_are_the_variance_of_the_labels_through_the_cap(tiny, shaken):
    model = shaken(tiny)
    tokens_BT = batches()[0]
    rows = torch.stack([collect(model, [tokens_BT], seed=seed)["stream.embedding.weight"].fisher_R for seed in range(100)])
    capped = model(tokens_BT).detach().flatten(0, 1).double()
    probabilities, slope = capped.softmax(-1), 1 - (capped / tiny.logit_softcap) ** 2
    expected = (probabilities * (1 - probabilities) * slope**2).mean(0)
    error = rows.std(0) / 10
    assert ((rows.mean(0) - expected).abs() < 5 * error + 1e-3 * expected).all()
    assert rows.mean(0).sum().item() == pytest.approx(expected.sum().item(), rel=0.02)


@pytest.mark.parametrize(
    "name",
    [
        "stream.embedding.weight",
        "stream.bigram.table.weight",
        "value_embedding.table.weight",
        "blocks.0.attention.value.weight",
        "blocks.1.feed_forward.up.weight",
        "blocks.2.attention.output.weight",
        "blocks.2.feed_forward.down.weight",
        "unembedding.weight",
    ],
)
def test_the_estimate_foresees_the_divergence_that_an_error_causes(tiny, shaken, name):
    model = shaken(dataclasses.replace(tiny, tied_embeddings=False))
    text = list(random(64, 128, 16, 64, seed=0))
    curvature = collect(model, text)[name]
    weight, generator = model.get_parameter(name), torch.Generator().manual_seed(0)
    measured, estimated = 0.0, 0.0
    with torch.no_grad():
        before = [F.log_softmax(model(tokens_BT).double(), -1) for tokens_BT in text]
        original = weight.clone()
        for _ in range(4):
            error = 0.01 * torch.randn(weight.shape, generator=generator)
            weight.copy_(original + error)
            after = [F.log_softmax(model(tokens_BT).double(), -1) for tokens_BT in text]
            pairs = zip(before, after, strict=True)
            measured += sum((p.exp() * (p - q)).sum(-1).mean().item() for p, q in pairs) / len(text)
            cost_R = ((error.double() @ curvature.hessian_CC) * error).sum(1)
            estimated += 0.5 * (curvature.fisher_R @ cost_R).item()
    assert 0.5 < estimated / measured < 2


def test_two_ranks_are_one(model):
    text = batches(3)
    whole = collect(model, text)
    for first, second in ((text[::2], text[1::2]), ([], text)):  # a rank may have no batch
        sent = []
        collect(model, first, reduce=lambda tensor, sent=sent: sent.append(tensor.clone()))
        both = collect(model, second, reduce=lambda tensor, sent=sent: tensor.add_(sent.pop(0)))
        assert not sent
        assert_close(both, whole, 1e-12)


def test_small_contributions_are_not_lost_in_a_large_sum(tiny, shaken):
    model, text = shaken(tiny), batches()[:1]
    assert_close(collect(model, text * 30), collect(model, text), 1e-13)


def test_weights_that_no_token_reached_cost_nothing(tiny, shaken):
    model = shaken(dataclasses.replace(tiny, mod_layers=[2]))
    with torch.no_grad():
        model.blocks[2].router.threshold.fill_(1e6)
    found = collect(model, batches())
    for name in ("up", "down"):
        curvature = found[f"blocks.2.feed_forward.{name}.weight"]
        assert not curvature.hessian_CC.any() and not curvature.fisher_R.any()
    assert found["blocks.2.attention.query.weight"].fisher_R.all()


def test_the_model_is_left_as_it_was_even_after_an_error(model):
    model.blocks[0].attention.query.weight.requires_grad_(False)
    asked = [parameter.requires_grad for parameter in model.parameters()]
    collect(model, batches())
    with pytest.raises(IndexError):
        collect(model, [*batches(), torch.tensor([[99]])])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert all(parameter.grad is None for parameter in model.parameters())


def test_neither_autocast_nor_a_caller_without_gradients_changes_anything(tiny, shaken):
    model = shaken(tiny)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = collect(model, batches())
    assert_close(found, collect(model, batches()), 0)


def test_the_network_may_write_the_text_while_it_is_measured(tiny, shaken):
    model = shaken(tiny)
    assert_close(collect(model, generated(model, 4, 8, 2, 0)), collect(model, list(generated(model, 4, 8, 2, 0))), 0)


def test_labels_follow_the_predictions():
    logits_V, rows = torch.tensor([0.0, 1.0, -1.0, 2.5]), 20000
    labels = draw_labels(logits_V.expand(rows, 4), torch.tensor([[1, 2]]), seed=3)
    expected = logits_V.softmax(0)
    sigma = (expected * (1 - expected) / rows).sqrt()
    assert ((torch.bincount(labels, minlength=4) / rows - expected).abs() < 4 * sigma).all()


def test_labels_depend_on_the_batch_and_the_seed_alone():
    logits, tokens = torch.zeros(200, 8), torch.arange(200).view(2, 100)
    assert torch.equal(draw_labels(logits, tokens, 0), draw_labels(logits, tokens.clone(), 0))
    assert not torch.equal(draw_labels(logits, tokens, 0), draw_labels(logits, tokens, 1))
    assert not torch.equal(draw_labels(logits, tokens, 0), draw_labels(logits, tokens + 1, 0))


@given(st.integers(1, 50), st.integers(0, 1000), st.integers(2, 40))
def test_windows_reach_from_the_first_to_the_last_token(length, extra, count):
    starts = evenly_spaced(length + extra, length, count)
    assert (len(starts), starts[0], starts[-1]) == (count, 0, extra)
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert max(steps) - min(steps) <= 1


def test_a_single_window_is_the_first():
    assert evenly_spaced(100, 10, 1) == [0]
