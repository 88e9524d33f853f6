"""The moving average against its formula, the average of snapshots against numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from fairway.optim.average import WeightAverage

KINDS = pytest.mark.parametrize("start", [lambda model: WeightAverage(model, 0.9), WeightAverage], ids=["moving", "snapshots"])


def walk(average: WeightAverage, model: nn.Module, values: list[float]) -> None:
    for value in values:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
        average.update(model)


def test_average_follows_its_formula():
    """decay(t) = min(0.5, (1 + t)/(10 + t)): 2/11, 3/12, 4/13, 5/14, … and 0.5 from the eighth update on."""
    model, values = nn.Linear(2, 1), [float(value) for value in (3, -1, 4, 1, 5, -9, 2, 6, 5, 3)]
    nn.init.constant_(model.weight, 7.0)
    nn.init.constant_(model.bias, 7.0)
    average, expected = WeightAverage(model, 0.5), 7.0
    walk(average, model, values)
    for decay, value in zip([2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5, 0.5, 0.5], values, strict=True):
        expected = decay * expected + (1 - decay) * value
    assert list(average.shadow) == ["weight", "bias"]
    for shadow in average.shadow.values():
        torch.testing.assert_close(shadow, torch.full_like(shadow, expected))


def test_snapshots_are_averaged_as_numpy_does():
    model, generator = nn.Linear(4, 3), torch.Generator().manual_seed(0)
    average, seen = WeightAverage(model), []
    for _ in range(7):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3, 4, generator=generator))
        average.update(model)
        seen.append(model.weight.detach().numpy().astype(np.float64).copy())
        np.testing.assert_allclose(average.shadow["weight"].numpy(), np.mean(seen, axis=0), rtol=1e-5, atol=1e-6)


def test_the_first_snapshot_replaces_the_initial_weights():
    model = nn.Linear(2, 1)
    average = WeightAverage(model)
    assert torch.equal(average.shadow["weight"], model.weight)
    walk(average, model, [3.0])
    assert torch.equal(average.shadow["weight"], torch.full((1, 2), 3.0))


@KINDS
def test_average_is_float32_of_any_weights_and_no_view_of_them(start):
    model = nn.Linear(2, 1).to(torch.bfloat16)
    average = start(model)
    walk(average, model, [1.5])
    assert average.shadow["weight"].dtype == torch.float32
    full = nn.Linear(2, 1)
    before = start(full)
    kept = full.weight.detach().clone()
    nn.init.constant_(full.weight, 9.0)
    assert torch.equal(before.shadow["weight"], kept)


@KINDS
def test_average_goes_on_after_saving(start):
    model = nn.Linear(2, 1)
    straight, values = start(model), [1.0, 2.0, 3.0, 4.0]
    resumed = start(model)
    walk(straight, model, values)
    walk(resumed, model, values[:2])
    other = start(nn.Linear(2, 1))
    other.load_state_dict(resumed.state_dict())
    walk(other, model, values[2:])
    for name, shadow in straight.shadow.items():
        assert torch.equal(shadow, other.shadow[name])
