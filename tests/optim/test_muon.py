"""Muon against torch.optim.Muon and against its definition in float64; stacks against single matrices."""

import numpy as np
import pytest
import torch

from fairway.optim.muon import Muon, orthogonalise

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024
SHAPES = [(16, 16), (24, 8), (8, 24), (16, 16), (24, 8)]


def parameters(shapes=SHAPES) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def gradients(step: int, shapes=SHAPES) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def run(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], steps: int) -> None:
    for step in range(steps):
        for weight, gradient in zip(weights, gradients(step, [weight.shape for weight in weights]), strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    """Five quintic steps on the singular values themselves: what the matrix form does, without its products."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(matrix)
    a, b, c = COEFFICIENTS
    for _ in range(5):
        values = a * values + b * values**3 + c * values**5
    return left @ np.diag(values) @ right


@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_orthogonalise_moves_the_singular_values_as_its_polynomial_says(shape):
    stack = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    ours = orthogonalise(stack, torch.float32).double().numpy()
    for matrix, result in zip(stack.double().numpy(), ours, strict=True):
        np.testing.assert_allclose(result, newton_schulz(matrix), atol=1e-4)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_muon_equals_its_definition(weight_decay):
    """buffer ← μ·buffer + g; w ← (1 − lr·decay)·w − lr·√max(1, rows/columns)·orthogonal(g + μ·buffer)."""
    weights, lr, momentum = parameters(), 0.05, 0.9
    expected = [weight.detach().double().numpy() for weight in weights]
    buffers = [np.zeros(shape) for shape in SHAPES]
    for step in range(4):
        for i, gradient in enumerate(gradients(step)):
            gradient = gradient.double().numpy()
            buffers[i] = momentum * buffers[i] + gradient
            direction = newton_schulz(gradient + momentum * buffers[i])
            scale = max(1, SHAPES[i][0] / SHAPES[i][1]) ** 0.5
            expected[i] = (1 - lr * weight_decay) * expected[i] - lr * scale * direction
    run(Muon(weights, lr, momentum, weight_decay, torch.float32), weights, 4)
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), value, atol=1e-4)


def test_muon_equals_pytorchs_within_the_rounding_of_bf16():
    """PyTorch's momentum is an average, ours a sum: (1 − μ) times ours, which the normalisation takes out."""
    ours, theirs = parameters(), parameters()
    start = [weight.detach().clone() for weight in ours]
    run(Muon(ours, 0.05, 0.9, 0.1), ours, 6)
    peer = torch.optim.Muon(
        theirs, lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="original", ns_coefficients=COEFFICIENTS
    )
    run(peer, theirs, 6)
    for our, their, before in zip(ours, theirs, start, strict=True):
        assert (our - their).norm() < 0.04 * (their - before).norm()  # 8 bits, five products in a row: 2 % measured


def test_a_stack_steps_as_its_matrices_do_one_at_a_time():
    together, alone = parameters(), parameters()
    run(Muon(together, 0.05, 0.9, 0.1, torch.float32), together, 3)
    for index, weight in enumerate(alone):
        optimizer = Muon([weight], 0.05, 0.9, 0.1, torch.float32)
        for step in range(3):
            weight.grad = gradients(step)[index]
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_momentum_and_rate_of_the_group_count_at_each_step():
    weights = [parameters([(8, 8)]) for _ in range(3)]
    optimizers = [Muon(weight, 0.05, 0.9, 0.0, torch.float32) for weight in weights]
    for optimizer, weight in zip(optimizers, weights, strict=True):
        run(optimizer, weight, 1)
    optimizers[1].param_groups[0]["momentum"] = 0.0
    optimizers[2].param_groups[0]["lr"] = 0.0
    before = weights[2][0].detach().clone()
    for optimizer, weight in zip(optimizers, weights, strict=True):
        run(optimizer, weight, 2)
    assert (weights[0][0] - weights[1][0]).abs().max() > 1e-3
    assert torch.equal(weights[2][0], before)


def test_a_matrix_without_gradient_stays():
    weights = parameters([(8, 8), (8, 8)])
    before = weights[1].detach().clone()
    weights[0].grad = gradients(0, [(8, 8)])[0]
    Muon(weights, 0.05, 0.9, 0.1).step()
    assert torch.equal(weights[1], before)


def test_a_zero_gradient_gives_no_nan():
    weight = parameters([(8, 4)])[0]
    before = weight.detach().clone()
    weight.grad = torch.zeros(8, 4)
    Muon([weight], 0.05, 0.9, 0.0).step()
    assert torch.equal(weight, before)


def test_state_survives_saving():
    straight, resumed = parameters(), parameters()
    run(Muon(straight, 0.05, 0.9, 0.1), straight, 2)
    first = Muon(resumed, 0.05, 0.9, 0.1)
    for step in range(2):
        for weight, gradient in zip(resumed, gradients(step), strict=True):
            weight.grad = gradient
        first.step()
        second = Muon(resumed, 0.05, 0.9, 0.1)
        second.load_state_dict(first.state_dict())
        first = second
    for one, other in zip(straight, resumed, strict=True):
        assert torch.equal(one, other)
