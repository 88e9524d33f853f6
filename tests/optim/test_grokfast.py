"""Grokfast against its formula in float64."""

import numpy as np
import torch
from torch import nn

from fairway.optim.average import Grokfast

WEIGHT, DECAY = 0.5, 0.9


def amplified(grokfast: Grokfast, step: int) -> list[np.ndarray]:
    """The gradients of a step after Grokfast; the third parameter has none."""
    generator = torch.Generator().manual_seed(step)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 2), (4,), (2,))]
    for parameter in parameters[:2]:
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    grokfast.apply(parameters)
    assert parameters[2].grad is None
    return [parameter.grad.numpy() for parameter in parameters[:2]]


def test_grokfast_follows_its_formula():
    grokfast, plain = Grokfast(WEIGHT, DECAY), Grokfast(0.0, DECAY)
    slow = None
    for step in range(5):
        gradients = [gradient.astype(np.float64) for gradient in amplified(plain, step)]
        if slow is None:
            slow = gradients
        slow = [DECAY * old + (1 - DECAY) * new for old, new in zip(slow, gradients, strict=True)]
        for ours, gradient, mean in zip(amplified(grokfast, step), gradients, slow, strict=True):
            np.testing.assert_allclose(ours, gradient + WEIGHT * mean, rtol=1e-5, atol=1e-6)


def test_the_slow_part_is_no_view_of_the_gradients():
    grokfast = Grokfast(WEIGHT, DECAY)
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    grokfast.apply([parameter])
    assert torch.equal(parameter.grad, torch.full((2,), 1 + WEIGHT))
    assert torch.equal(grokfast.slow[0], torch.ones(2))


def test_grokfast_goes_on_after_saving():
    straight, resumed = Grokfast(WEIGHT, DECAY), Grokfast(WEIGHT, DECAY)
    for step in range(2):
        amplified(straight, step)
        amplified(resumed, step)
    other = Grokfast(WEIGHT, DECAY)
    other.load_state_dict(resumed.state_dict())
    for ours, theirs in zip(amplified(other, 2), amplified(straight, 2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
