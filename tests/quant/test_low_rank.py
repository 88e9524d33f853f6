"""The low-rank correction against singular values, random competitors and the grid it is stored on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairway.quant.low_rank import factors, quantise_factors


def problem(rows: int, columns: int, seed: int, samples: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """An error and the Hessian of correlated inputs."""
    generator = torch.Generator().manual_seed(seed)
    error = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    x = torch.randn(samples, columns, generator=generator, dtype=torch.float64)
    x = x @ torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    return error, x.T @ x / samples


def energy(delta: torch.Tensor, hessian: torch.Tensor) -> float:
    return torch.trace(delta @ hessian @ delta.T).item()


def restored(pairs) -> torch.Tensor:
    left, right = (integers.double() * steps.double()[:, None] for integers, steps in pairs)
    return left.T @ right


@given(st.integers(1, 9), st.integers(2, 9), st.integers(1, 9), st.integers(0, 99))
def test_what_remains_is_the_tail_of_the_singular_values(rows, columns, rank, seed):
    error, hessian = problem(rows, columns, seed)
    values = torch.linalg.svdvals(error @ torch.linalg.cholesky(hessian))
    left, right = factors(error, hessian, rank)
    k = min(rank, rows, columns)
    assert left.shape == (rows, k) and right.shape == (k, columns) and left.dtype == torch.float64
    assert energy(error - left @ right, hessian) == pytest.approx(values[k:].square().sum().item(), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("with_hessian", [True, False])
def test_no_other_pair_of_the_rank_does_better(with_hessian):
    error, hessian = problem(12, 20, seed=1)
    metric = hessian if with_hessian else torch.eye(20, dtype=torch.float64)
    left, right = factors(error, hessian if with_hessian else None, 3)
    least = energy(error - left @ right, metric)
    generator = torch.Generator().manual_seed(2)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(20):
            other = left + scale * torch.randn(left.shape, generator=generator, dtype=torch.float64)
            # The best right factor for this left one: least squares, in whatever metric of the columns.
            assert energy(error - other @ torch.linalg.lstsq(other, error).solution, metric) >= least * (1 - 1e-12)
            nudge = scale * torch.randn(right.shape, generator=generator, dtype=torch.float64)
            assert energy(error - left @ (right + nudge), metric) >= least


def test_plain_svd_loses_in_the_outputs():
    error, hessian = problem(16, 32, seed=3)
    best, plain = (energy(error - torch.matmul(*factors(error, metric, 4)), hessian) for metric in (hessian, None))
    assert best < 0.8 * plain


@pytest.mark.parametrize(("rows", "columns"), [(5, 9), (9, 5)])
def test_full_rank_restores_exactly(rows, columns):
    error, hessian = problem(rows, columns, seed=4)
    for metric in (hessian, None):
        left, right = factors(error, metric, 5)
        torch.testing.assert_close(left @ right, error, rtol=0, atol=1e-10)


def test_dead_inputs_singular_hessians_and_no_error_do_no_harm():
    error, hessian = problem(6, 8, seed=5, samples=3)  # rank 3
    hessian[2] = hessian[:, 2] = 0
    left, right = factors(error, hessian, 3)
    assert left.isfinite().all() and right.isfinite().all()
    assert energy(error - left @ right, hessian) < 1e-9 * energy(error, hessian)
    assert torch.matmul(*factors(torch.zeros(6, 8), hessian, 2)).abs().max() == 0


def test_norms_are_split_evenly_and_fall():
    left, right = factors(*problem(30, 20, seed=6), 4)
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))
    plain_left, plain_right = factors(problem(30, 20, seed=6)[0], None, 4)
    strength = plain_left.norm(dim=0) * plain_right.norm(dim=1)
    assert (strength.diff() < 0).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_quantised_factors_are_on_the_grid_and_correct_most(bits):
    error, hessian = problem(48, 64, seed=7)
    left, right = factors(error, hessian, 4)
    pairs = quantise_factors(left, right, bits)
    for (integers, steps), columns in zip(pairs, (48, 64), strict=True):
        assert integers.shape == (4, columns) and integers.dtype == torch.int8 and integers.abs().max() <= 2 ** (bits - 1) - 1
        assert steps.shape == (4,) and steps.dtype == torch.float16
    before, best, after = (energy(error - part, hessian) for part in (torch.zeros(48, 64), left @ right, restored(pairs)))
    assert (before - after) / (before - best) > {2: 0.5, 3: 0.85, 4: 0.95, 8: 0.9999}[bits]
