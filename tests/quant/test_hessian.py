"""Hessians against sums of outer products, and hooks that go away."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fairway.quant.hessian import collect_hessians, evenly_spaced


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.block = nn.Module()
        self.block.up = nn.Linear(3, 4, bias=False)
        self.block.down = nn.Linear(4, 3, bias=False)

    def forward(self, tokens):
        return self.block.down(self.block.up(self.embedding(tokens)).square())


def batches() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 7, shape, generator=generator) for shape in ((2, 5), (1, 4))]


def test_hessians_are_mean_outer_products_of_the_inputs():
    torch.manual_seed(0)
    model = Tiny()
    found = collect_hessians(model, batches(), ["block.up.weight", "block.down.weight"])
    expected = {"block.up.weight": torch.zeros(3, 3), "block.down.weight": torch.zeros(4, 4)}
    for batch in batches():
        for token in batch.flatten():
            x = model.embedding.weight[token].detach()
            h = (model.block.up.weight.detach() @ x) ** 2
            expected["block.up.weight"] += torch.outer(x, x) / 14
            expected["block.down.weight"] += torch.outer(h, h) / 14
    assert found.keys() == expected.keys()
    for name, hessian in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name].float(), hessian)
        assert torch.equal(found[name], found[name].T)


def test_small_contributions_are_not_lost_in_a_large_sum():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    inputs = [torch.tensor([[1e4]])] + [torch.tensor([[1.0]])] * 50
    found = collect_hessians(model, inputs, ["0.weight"])["0.weight"]
    assert found.item() * 51 == pytest.approx(1e8 + 50, abs=1e-6)


def test_hooks_are_removed_even_after_an_error():
    model = Tiny()
    collect_hessians(model, batches(), ["block.up.weight"])
    with pytest.raises(IndexError):
        collect_hessians(model, [torch.tensor([[99]])], ["block.up.weight"])
    assert not model.block.up._forward_pre_hooks


@given(st.integers(1, 50), st.integers(0, 1000), st.integers(2, 40))
def test_windows_reach_from_the_first_to_the_last_token(length, extra, count):
    starts = evenly_spaced(length + extra, length, count)
    assert (len(starts), starts[0], starts[-1]) == (count, 0, extra)
    steps = [after - before for before, after in itertools.pairwise(starts)]
    assert max(steps) - min(steps) <= 1


def test_a_single_window_is_the_first():
    assert evenly_spaced(100, 10, 1) == [0]
