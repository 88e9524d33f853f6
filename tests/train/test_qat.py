"""Quantisation-aware training: the grids of the export to the bit, penalties that lead there, pruning of an exact fraction."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fairway.lm.parameters import role_of
from fairway.quant import quantiser
from fairway.quant.clips import steps
from fairway.quant.grids import SMALLEST_STEP, dequantise, quantise, to_half
from fairway.train.qat import (
    crown_penalty,
    differentiable_step,
    entropy_penalty,
    grid_of,
    grid_weights,
    on_grid,
    prune_,
    prune_target,
    straight_through,
)

PENALTIES = [entropy_penalty, crown_penalty]
TEXT = torch.tensor(list(b"the cat sat on the mat; " * 20)[:272]).view(16, 17)  # windows (B, T + 1)


def gaussian(rows: int, columns: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def network(tiny, shaken):
    """Large enough that matrices, tables and an untied head get grids, small enough that some matrices do not."""
    wide = dataclasses.replace(
        tiny, width=64, vocabulary_size=128, bigram_buckets=300, value_embedding_width=40, tied_embeddings=False
    )
    return shaken(wide)


@pytest.fixture
def exported(quant_params):
    """state, qat → what quant's round to nearest makes of the weights with a grid, in float32."""

    def export(state: dict[str, torch.Tensor], qat) -> dict[str, torch.Tensor]:
        extra, clips = qat.embedding_bits - qat.bits, {"clip": qat.clip, "embedding_clip": qat.embedding_clip}
        params = quant_params(method="rtn", bits=qat.bits, embedding_extra_bits=extra, **clips)
        matrices = quantiser.quantise(quantiser.prepare(state, {}, params, layers=3), params)
        return {name: torch.from_numpy(matrix.weights()) for name, matrix in matrices.items()}

    return export


def test_the_weights_with_a_grid_are_those_that_quant_gives_one(network, exported, qat_params):
    matrices = exported(network.state_dict(), qat_params())
    roles = grid_weights(network)
    assert list(roles) == list(matrices)
    assert roles == {name: role_of(name, network.get_parameter(name).shape) for name in matrices}
    assert set(roles.values()) == {"feed_forward", "embedding"}
    assert {"stream.embedding.weight", "blocks.1.feed_forward.up.weight", "unembedding.weight"} <= set(roles)
    assert "stream.bigram.projection.weight" not in roles  # 1,024 weights: fp16


def test_training_sees_what_round_to_nearest_exports(network, exported, qat_params):
    parameters, roles, qat = dict(network.named_parameters()), grid_weights(network), qat_params()
    restored = exported(network.state_dict(), qat)
    with on_grid(parameters, roles, qat):
        assert all(torch.equal(parameters[name], restored[name]) for name in roles)
        logits = network(TEXT)
    assert not any(torch.equal(parameters[name], restored[name]) for name in roles)
    network.load_state_dict(network.state_dict() | restored)
    assert torch.equal(logits, network(TEXT))


@given(st.integers(0, 99), st.integers(2, 8), st.floats(0.5, 40), st.floats(-6, 3))
def test_straight_through_is_the_grid_forwards_and_nothing_backwards(seed, bits, clip, magnitude):
    weight = gaussian(5, 24, seed) * 10**magnitude
    weight[2] = 0
    weight[3, 7] *= 100  # beyond the grid where clip is small
    weight.requires_grad_()
    scales = to_half(steps(weight.detach(), "deviation", bits, clip))
    on_grid = straight_through(weight, bits, clip)
    assert torch.equal(on_grid, dequantise(quantise(weight.detach(), scales, bits), scales))
    upstream = gaussian(5, 24, seed + 1)
    on_grid.backward(upstream)
    assert torch.equal(weight.grad, upstream)


@given(st.integers(0, 99), st.integers(2, 8), st.floats(0.5, 40))
def test_the_step_is_that_of_the_grid_up_to_half_precision(seed, bits, clip):
    weight = gaussian(6, 24, seed)
    step = differentiable_step(weight, bits, clip)
    assert step.shape == (6, 1)
    torch.testing.assert_close(step[:, 0], to_half(steps(weight, "deviation", bits, clip)).float(), rtol=2**-11, atol=0)


def test_gradient_of_the_step_against_finite_differences():
    weight = gaussian(3, 5, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: differentiable_step(w, 4, 3.0), weight)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_rows_of_zeros_have_the_smallest_step_and_no_gradient(penalty, qat_params):
    weight = torch.zeros(3, 4, requires_grad=True)
    assert differentiable_step(weight, 4, 3.0).tolist() == [[SMALLEST_STEP]] * 3
    penalty({"w": weight}, {"w": "attention"}, qat_params()).backward()
    assert weight.grad.tolist() == [[0.0] * 4] * 3


def looped(name: str, parameters: dict, roles: dict, qat) -> float:
    """A penalty row by row and weight by weight, as its formula reads."""
    total = 0.0
    for key, role in roles.items():
        bits, clip = (qat.embedding_bits, qat.embedding_clip) if role == "embedding" else (qat.bits, qat.clip)
        for row in parameters[key].detach().double().numpy():
            step = clip * math.sqrt(np.mean(row**2)) / (2 ** (bits - 1) - 1)
            if name == "entropy_penalty":
                total += sum((w / step - round(w / step)) ** 2 for w in row) / len(row)
            else:
                total += sum(w**2 * step**2 / 12 for w in row) / len(row)
    return total


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalties_are_their_formula(penalty, network, qat_params):
    parameters, roles = dict(network.named_parameters()), grid_weights(network)
    value = penalty(parameters, roles, qat_params())
    assert value.item() == pytest.approx(looped(penalty.__name__, parameters, roles, qat_params()), rel=1e-5)


def test_the_entropy_penalty_is_nothing_on_the_grid_and_a_twelfth_a_row_anywhere(qat_params):
    qat = qat_params(bits=4, clip=7.0)  # the step is a row's standard deviation
    signs = gaussian(6, 32).sign()
    assert entropy_penalty({"w": 0.3 * signs}, {"w": "attention"}, qat).item() == 0
    spread = entropy_penalty({"w": gaussian(200, 500)}, {"w": "attention"}, qat_params(bits=8, clip=9.0))
    assert spread.item() / 200 == pytest.approx(1 / 12, rel=0.01)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_gradients_of_penalties_against_finite_differences(penalty, qat_params):
    roles = {"a": "attention", "b": "embedding", "c": "attention"}
    weights = [gaussian(rows, columns, seed, torch.float64) for seed, (rows, columns) in enumerate([(3, 6), (4, 6), (2, 6)])]
    qat = qat_params()
    for weight, (bits, clip) in zip(weights, [(4, 4.0), (5, 4.0), (4, 4.0)], strict=True):
        position = weight / differentiable_step(weight, bits, clip)
        assert ((position - position.floor() - 0.5).abs() > 1e-4).all()  # gradcheck moves weights by 1e-6: no jumps
        weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda *values: penalty(dict(zip(roles, values, strict=True)), roles, qat), weights)


def test_the_entropy_penalty_alone_leads_to_the_grid_of_the_export(exported, qat_params):
    weight, qat = gaussian(96, 48).requires_grad_(), qat_params(bits=5, clip=6.0)

    def loss_of_the_export() -> float:
        state = {"w.weight": weight.detach()}
        return (state["w.weight"] - exported(state, qat)["w.weight"]).norm() / weight.detach().norm()

    before = loss_of_the_export()
    optimizer = torch.optim.Adam([weight], lr=0.01, betas=(0.5, 0.95))
    for _ in range(50):
        optimizer.zero_grad()
        entropy_penalty({"w": weight}, {"w": "attention"}, qat).backward()
        optimizer.step()
    assert loss_of_the_export() < 0.25 * before


@pytest.mark.parametrize(("penalty", "weight"), [(entropy_penalty, 3e-5), (crown_penalty, 300.0)])
def test_penalties_pull_measurably_and_do_not_tear(penalty, weight, network, qat_params):
    network.initialise(1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01)
    for _ in range(12):
        optimizer.zero_grad()
        cross_entropy(network).backward()
        optimizer.step()
    roles = grid_weights(network)
    parameters = {name: parameter for name, parameter in network.named_parameters() if name in roles}
    qat = qat_params(bits=6, clip=15.0, embedding_bits=8, embedding_clip=9.0)
    text, grid = (
        torch.stack([gradient.norm() for gradient in torch.autograd.grad(loss, list(parameters.values()))]).norm()
        for loss in (cross_entropy(network), weight * penalty(parameters, roles, qat))
    )
    assert 0.01 < (grid / text).item() < 0.3


def cross_entropy(network) -> torch.Tensor:
    return F.cross_entropy(network(TEXT[:, :-1]).flatten(0, 1), TEXT[:, 1:].flatten())


def test_compiles_into_one_graph(qat_params):
    roles, qat = {"a": "attention", "b": "embedding"}, qat_params()
    parameters = {"a": gaussian(8, 16), "b": gaussian(4, 16)}

    def together(parameters):
        rounded = {name: straight_through(parameters[name], *grid_of(role, qat)) for name, role in roles.items()}
        return rounded, entropy_penalty(parameters, roles, qat), crown_penalty(parameters, roles, qat)

    weights, *penalties = torch.compile(together, backend="aot_eager", fullgraph=True)(parameters)
    expected, *expected_penalties = together(parameters)
    assert all(torch.equal(weights[name], expected[name]) for name in roles)
    torch.testing.assert_close(penalties, expected_penalties)


def test_pruning_begins_late_fast_and_ends_at_its_fraction(qat_params):
    qat = qat_params(prune_fraction=0.4, prune_start=0.5)
    assert [prune_target(done, qat) for done in (0.0, 0.3, 0.5)] == [0, 0, 0]
    assert prune_target(0.75, qat) == pytest.approx(0.4 * 7 / 8)
    assert prune_target(0.6, qat) == pytest.approx(0.4 * (1 - 0.8**3))
    assert prune_target(1.0, qat) == 0.4
    assert prune_target(0.0, qat_params(prune_fraction=0.4, prune_start=0.0)) == 0
    assert prune_target(1.0, qat_params(prune_fraction=0.0)) == 0


@given(fraction=st.floats(0, 0.99), start=st.floats(0, 0.99))
def test_pruning_only_rises(qat_params, fraction, start):
    qat = qat_params(prune_fraction=fraction, prune_start=start)
    targets = [prune_target(done, qat) for done in np.linspace(0, 1, 41)]
    assert all(0 <= earlier <= later <= fraction for earlier, later in itertools.pairwise(targets))
    assert targets[-1] == fraction


@given(st.integers(1, 12), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99))
def test_pruned_are_exactly_the_smallest(rows, columns, fraction, seed):
    magnitude = 1 + torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed)).float()
    weight = (magnitude * torch.randn(rows * columns, generator=torch.Generator().manual_seed(seed)).sign()).view(rows, columns)
    before, count = weight.clone(), math.floor(fraction * weight.numel())
    prune_([weight], fraction)
    assert torch.equal(weight == 0, before.abs() <= count)  # magnitudes are 1, 2, 3, …
    assert torch.equal(weight[weight != 0], before[weight != 0])
    again = weight.clone()
    prune_([again], fraction)
    assert torch.equal(again, weight)


def test_each_parameter_is_pruned_alone_and_still_learns():
    large, tiny_one = torch.nn.Parameter(100 * gaussian(4, 5)), torch.nn.Parameter(gaussian(10, 2))
    prune_(iter([large, tiny_one]), 0.25)
    assert [(weight == 0).sum().item() for weight in (large, tiny_one)] == [5, 5]
    (large.sum() + tiny_one.sum()).backward()
    assert large.grad.eq(1).all() and tiny_one.grad.eq(1).all()


def test_equal_magnitudes_go_together():
    weight = torch.tensor([[1.0, -1.0, 1.0, 2.0]])
    prune_([weight], 0.25)
    assert weight.tolist() == [[0, 0, 0, 2]]
    prune_([weight], 0.75)
    assert weight.tolist() == [[0, 0, 0, 2]]
