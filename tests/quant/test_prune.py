"""Pruning against a plain sort in Python."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.prune import ones, smallest

fractions = st.sampled_from([0.0, 0.1, 0.15, 0.5, 0.75, 1.0])


@given(st.lists(st.integers(-3, 3), min_size=12, max_size=12), fractions)
def test_smallest_magnitudes_of_the_matrix_ties_by_position(values, fraction):
    weight = torch.tensor(values, dtype=torch.float32).reshape(3, 4)
    ranked = sorted(range(12), key=lambda i: (abs(values[i]), i))
    expected = set(ranked[: int(fraction * 12)])
    mask = smallest(weight, fraction)
    assert mask.shape == (3, 4) and mask.dtype == torch.bool
    assert set(mask.flatten().nonzero().flatten().tolist()) == expected
    assert weight.flatten().tolist() == values


def test_fifteen_percent_as_861_does():
    weight = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    mask = smallest(weight, 0.15)
    assert mask.sum() == 13_500
    assert weight[mask].abs().max() < weight[~mask].abs().min()


@given(st.lists(st.integers(-3, 3), min_size=12, max_size=12), st.lists(st.integers(0, 4), min_size=12, max_size=12), fractions)
def test_least_salient_ones_become_zero_and_nothing_else(values, saliencies, fraction):
    integers = torch.tensor(values, dtype=torch.int8).reshape(3, 4)
    candidates = sorted((i for i in range(12) if abs(values[i]) == 1), key=lambda i: (saliencies[i], i))
    expected = list(values)
    for i in candidates[: int(fraction * len(candidates))]:
        expected[i] = 0
    pruned = ones(integers, torch.tensor(saliencies).reshape(3, 4), fraction)
    assert pruned.dtype == torch.int8
    assert pruned.flatten().tolist() == expected
    assert integers.flatten().tolist() == values


def test_saliency_may_be_one_value_a_row():
    integers = torch.tensor([[1, -1, 2], [-1, 0, 1]], dtype=torch.int8)
    assert ones(integers, torch.tensor([[4.0], [1.0]]), 0.5).tolist() == [[1, -1, 2], [0, 0, 0]]


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_nothing_to_prune(fraction):
    integers = torch.tensor([[0, 2, -3]], dtype=torch.int8)
    assert torch.equal(ones(integers, torch.ones(1, 3), fraction), integers)
