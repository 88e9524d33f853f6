"""Muon against torch.optim.Muon and against its definition in float64; stacks against single matrices."""

import numpy as np
import pytest
import torch

from fairway.optim import muon
from fairway.optim.muon import COEFFICIENTS, Muon, orthogonalise

JORDAN = (3.4445, -4.7750, 2.0315)
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


def polynomials(matrix: np.ndarray, coefficients=(JORDAN,) * 5, margin: float = 1.0) -> np.ndarray:
    """Quintic steps on the singular values themselves: what the matrix form does, without its products."""
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    values = values / np.linalg.norm(matrix) / margin
    for a, b, c in coefficients:
        values = a * values + b * values**3 + c * values**5
    return left @ np.diag(values) @ right


@pytest.mark.parametrize(("name", "margin"), [("newton_schulz", 1.0), ("polar_express", 1.01)])
@pytest.mark.parametrize("shape", [(16, 16), (24, 8), (8, 24)])
def test_orthogonalise_moves_the_singular_values_as_its_polynomials_say(shape, name, margin):
    stack = torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    before = stack.clone()
    ours = orthogonalise(stack, torch.float32, COEFFICIENTS[name]).double().numpy()
    for matrix, result in zip(stack.double().numpy(), ours, strict=True):
        np.testing.assert_allclose(result, polynomials(matrix, COEFFICIENTS[name], margin), atol=2e-4)
    assert torch.equal(stack, before)


def test_a_batch_equals_a_loop_over_its_matrices():
    stack = torch.randn(4, 48, 32, generator=torch.Generator().manual_seed(2))
    for matrix, full, half in zip(stack, orthogonalise(stack, torch.float32), orthogonalise(stack), strict=True):
        x = matrix.T / matrix.norm()
        for a, b, c in COEFFICIENTS["newton_schulz"]:
            gram = x @ x.T
            x = a * x + (b * gram + c * gram @ gram) @ x
        torch.testing.assert_close(full, x.T, atol=1e-5, rtol=0)
        assert half.dtype == torch.bfloat16
        assert (half - x.T).norm() < 0.05 * x.norm()


def test_polar_express_ends_closer_to_orthogonal():
    """Singular values 1 to 0.01: within 0.14 of 1, on average 0.08; Newton–Schulz 0.32 and 0.17."""
    left, _, right = torch.linalg.svd(torch.randn(4, 64, 96, generator=torch.Generator().manual_seed(3)), full_matrices=False)
    stack = left * torch.logspace(0, -2, 64) @ right
    off = {
        name: (torch.linalg.svdvals(orthogonalise(stack, coefficients=triples).float()) - 1).abs()
        for name, triples in COEFFICIENTS.items()
    }
    assert off["polar_express"].max() < 0.15 < 0.3 < off["newton_schulz"].max()
    assert off["polar_express"].mean() < 0.6 * off["newton_schulz"].mean()


def test_polar_express_survives_a_matrix_of_rank_one_in_bf16():
    """All of the norm in one singular value: rounding may start it above 1, where the first polynomial is steep."""
    stack = torch.randn(8, 32, 1, generator=torch.Generator().manual_seed(4)) @ torch.ones(1, 32)
    values = torch.linalg.svdvals(orthogonalise(stack, coefficients=COEFFICIENTS["polar_express"]).float())
    assert (values[:, 0] - 1).abs().max() < 0.15


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
            direction = polynomials(gradient + momentum * buffers[i])
            scale = max(1, SHAPES[i][0] / SHAPES[i][1]) ** 0.5
            expected[i] = (1 - lr * weight_decay) * expected[i] - lr * scale * direction
    run(Muon(weights, lr, momentum, weight_decay, torch.float32), weights, 4)
    for weight, value in zip(weights, expected, strict=True):
        np.testing.assert_allclose(weight.detach().numpy(), value, atol=1e-4)


def pytorchs(weights: list[torch.nn.Parameter]) -> torch.optim.Muon:
    return torch.optim.Muon(weights, lr=0.05, momentum=0.9, weight_decay=0.1, adjust_lr_fn="original", ns_coefficients=JORDAN)


def test_muon_equals_pytorchs_when_that_computes_in_float32(monkeypatch):
    """PyTorch's momentum is an average, ours a sum: (1 − μ) times ours, which the normalisation takes out."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    ours, theirs = parameters(), parameters()
    run(Muon(ours, 0.05, 0.9, 0.1, torch.float32), ours, 6)
    run(pytorchs(theirs), theirs, 6)
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=1e-5, rtol=0)


def test_muon_equals_pytorchs_within_the_rounding_of_bf16():
    ours, theirs = parameters(), parameters()
    start = [weight.detach().clone() for weight in ours]
    run(Muon(ours, 0.05, 0.9, 0.1), ours, 6)
    run(pytorchs(theirs), theirs, 6)
    for our, their, before in zip(ours, theirs, start, strict=True):
        assert (our - their).norm() < 0.04 * (their - before).norm()  # 8 bits, five products in a row: 2 % measured


def test_row_normalisation_comes_between_momentum_and_orthogonalisation():
    """MuonEq-R of one matrix, written out; the first row has no gradient, and gets none."""
    (weight,), lr, momentum = parameters([(6, 10)]), 0.05, 0.9
    expected, buffer = weight.detach().double().numpy(), np.zeros((6, 10))
    optimizer = Muon([weight], lr, momentum, 0.0, torch.float32, row_normalise=True)
    for step in range(3):
        (gradient,) = gradients(step, [(6, 10)])
        gradient *= torch.logspace(-3, 3, 6)[:, None]
        gradient[0] = 0
        weight.grad = gradient.clone()
        optimizer.step()
        buffer = momentum * buffer + gradient.double().numpy()
        update = gradient.double().numpy() + momentum * buffer
        update /= np.maximum(np.linalg.norm(update, axis=1, keepdims=True), 1e-7)
        expected = expected - lr * polynomials(update)
    np.testing.assert_allclose(weight.detach().numpy(), expected, atol=1e-4)


def test_groups_step_at_their_own_rate_momentum_and_decay():
    """Two matrices of one shape in two groups are two stacks; each goes as it would alone."""
    together, alone = parameters([(8, 8), (8, 8)]), parameters([(8, 8), (8, 8)])
    settings = [{"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}, {"lr": 0.01, "momentum": 0.5, "weight_decay": 0.0}]
    groups = [{"params": [weight], **setting} for weight, setting in zip(together, settings, strict=True)]
    run(Muon(groups, 1.0, 0.0, 0.0, torch.float32), together, 3)
    optimizers = [Muon([weight], **setting, dtype=torch.float32) for weight, setting in zip(alone, settings, strict=True)]
    for step in range(3):
        for weight, gradient, optimizer in zip(alone, gradients(step, [(8, 8), (8, 8)]), optimizers, strict=True):
            weight.grad = gradient
            optimizer.step()
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_clipping_between_launch_and_step_is_clipping_the_gradients():
    clipped, plain = parameters(), parameters()
    ours, theirs = Muon(clipped, 0.05, 0.9, 0.1, torch.float32), Muon(plain, 0.05, 0.9, 0.1, torch.float32)
    for step in range(3):
        for one, other, gradient in zip(clipped, plain, gradients(step), strict=True):
            one.grad, other.grad = gradient.clone(), gradient.clone()
        ours.launch()
        norm = ours.squared_norm().sqrt()
        ours.scale(0.1**step / norm)
        ours.step()
        assert norm.item() == pytest.approx(torch.nn.utils.clip_grad_norm_(plain, 1e9).item(), rel=1e-5)
        for weight in plain:
            weight.grad *= 0.1**step / norm
        theirs.step()
        assert torch.equal(clipped[0].grad, gradients(step)[0])  # the parameters' own gradients are left alone
    for one, other in zip(clipped, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


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


def test_small_stacks_step_as_one_large_does(monkeypatch):
    shapes = [(8, 8)] * 7
    whole, parts = parameters(shapes), parameters(shapes)
    run(Muon(whole, 0.05, 0.9, 0.1, torch.float32), whole, 3)
    monkeypatch.setattr(muon, "STACK", 3 * 64)
    optimizer = Muon(parts, 0.05, 0.9, 0.1, torch.float32)
    run(optimizer, parts, 3)
    assert [len(state["momentum"]) for state in optimizer.state.values()] == [3, 3, 1]
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


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


def test_two_runs_are_bitwise_equal():
    runs = [parameters() for _ in range(2)]
    for weights in runs:
        run(Muon(weights, 0.05, 0.9, 0.1), weights, 3)
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)
