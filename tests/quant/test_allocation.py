"""Steps by sensitivity against their optimality conditions, and the search for a byte budget on artificial size curves."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.quant.allocation import LEAST_SHARE, RANGE, TOLERANCE, TRIES, Rows, by_sensitivity, fill


def spread(rows: int, columns: int, seed: int, known: bool = True) -> Rows:
    """Random steps, and sensitivities over a factor of about a hundred: above the floor, a hundredth of the mean."""
    generator = torch.Generator().manual_seed(seed)
    steps, size = torch.rand(rows, generator=generator, dtype=torch.float64) + 0.1, torch.rand(rows, generator=generator)
    return Rows(steps, (100 ** (size.double() - 0.5)) if known else None, columns)


def mean_log2_step(steps: dict[str, torch.Tensor], matrices: dict[str, Rows]) -> float:
    """Mean over weights."""
    weights = sum(matrices[name].columns * len(steps[name]) for name in steps)
    return sum(matrices[name].columns * steps[name].log2().sum().item() for name in steps) / weights


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4), st.integers(0, 999))
def test_every_row_costs_the_same_and_the_mean_step_stays(shapes, seed):
    matrices = {f"m{index}": spread(*shape, seed + index) for index, shape in enumerate(shapes)}
    steps = by_sensitivity(matrices)
    costs = torch.cat([matrices[name].sensitivity * steps[name] ** 2 for name in matrices])
    torch.testing.assert_close(costs, costs[:1].expand_as(costs))
    given = {name: rows.steps for name, rows in matrices.items()}
    assert mean_log2_step(steps, matrices) == pytest.approx(mean_log2_step(given, matrices), abs=1e-9)
    assert list(steps) == list(matrices)


def test_no_steps_of_the_same_bits_cost_less():
    """Σ sensitivity · step² over weights, which is what the loss grows by, among steps of equal mean logarithm."""
    matrices = {"a": spread(7, 5, seed=1), "b": spread(3, 12, seed=2)}
    best = by_sensitivity(matrices)
    weights = torch.cat(
        [torch.full((len(rows.steps),), float(rows.columns), dtype=torch.float64) for rows in matrices.values()]
    )
    sensitivity = torch.cat([rows.sensitivity for rows in matrices.values()])
    optimum = torch.cat(list(best.values())).log2()
    generator = torch.Generator().manual_seed(3)
    for scale in (1e-3, 0.1, 1.0):
        moved = scale * torch.randn(50, len(optimum), generator=generator, dtype=torch.float64)
        moved -= (moved * weights).sum(dim=1, keepdim=True) / weights.sum()
        losses = (weights * sensitivity * 4 ** (optimum + moved)).sum(dim=1)
        assert (losses > (weights * sensitivity * 4**optimum).sum()).all()


@pytest.mark.parametrize("factor", [1e-12, 1e9])
def test_units_do_not_matter(factor):
    matrices = {"a": spread(7, 5, seed=4), "b": spread(3, 12, seed=5)}
    before = by_sensitivity(matrices)
    scaled = {name: Rows(rows.steps, factor * rows.sensitivity, rows.columns) for name, rows in matrices.items()}
    coarse = {name: Rows(factor * rows.steps, rows.sensitivity, rows.columns) for name, rows in matrices.items()}
    for name, steps in before.items():
        torch.testing.assert_close(by_sensitivity(scaled)[name], steps)
        torch.testing.assert_close(by_sensitivity(coarse)[name], factor * steps)


def test_rows_that_calibration_did_not_meet_count_a_hundredth_of_the_mean():
    sensitivity = torch.tensor([4.0, 0.0, 1e-9, 2.0], dtype=torch.float64)
    steps = by_sensitivity({"a": Rows(torch.ones(4, dtype=torch.float64), sensitivity, 3)})["a"]
    floored = torch.tensor([4.0, LEAST_SHARE * 1.5, LEAST_SHARE * 1.5, 2.0], dtype=torch.float64)
    torch.testing.assert_close(steps**2 * floored, (steps[0] ** 2 * 4).expand(4), rtol=1e-6, atol=0)


def test_matrices_without_sensitivities_keep_their_steps_and_have_no_say():
    matrices = {"a": spread(7, 5, seed=6), "b": spread(300, 12, seed=7, known=False)}
    steps = by_sensitivity(matrices)
    assert torch.equal(steps["b"], matrices["b"].steps)
    assert torch.equal(steps["a"], by_sensitivity({"a": matrices["a"]})["a"])
    assert torch.equal(by_sensitivity({"b": matrices["b"]})["b"], matrices["b"].steps)


def test_rows_of_zeros_have_no_say():
    """A bucket that no pair of tokens used: a step of zero has no logarithm."""
    rows = spread(6, 5, seed=8)
    emptied = Rows(rows.steps.clone().index_fill(0, torch.tensor(5), 0.0), rows.sensitivity, 5)
    steps = by_sensitivity({"a": emptied})["a"]
    assert (rows.sensitivity * steps**2).std() < 1e-9
    assert steps[:5].log2().mean() == pytest.approx(rows.steps[:5].log2().mean())


class Curve:
    """Bytes of a file: a fixed part, and per weight `bits` bits at a step scale of 1, one less for each doubling of the steps;
    at most 8, and hardly any where the steps are wider than the weights. `jitter`: irregularity of the coder, as a share."""

    def __init__(self, fixed: int, weights: int, bits: float, jitter: float = 0.0):
        self.fixed, self.weights, self.bits, self.jitter, self.calls = fixed, weights, bits, jitter, 0

    def __call__(self, log2_step_scale: float) -> int:
        self.calls += 1
        rate = min(math.log2(1 + 2 ** (self.bits - log2_step_scale)), 8.0)
        return self.fixed + int(self.weights * rate / 8 * (1 + self.jitter * math.sin(1e4 * log2_step_scale)))


curves = st.builds(Curve, st.integers(0, 200_000), st.integers(10**5, 10**8), st.floats(0.5, 7.5), st.sampled_from([0.0, 2e-4]))


@settings(max_examples=300)
@given(curves, st.floats(0, 1))
def test_any_budget_within_reach_is_filled(curve, share):
    least, most = curve(RANGE), curve(-RANGE)
    budget = int(least + share * (most - least))
    assume(budget > 1.01 * least and budget < 0.99 * most)
    curve.calls = 0
    size = curve(fill(curve, budget, curve.weights))
    assert (1 - TOLERANCE) * budget <= size <= budget
    assert curve.calls <= TRIES + 1


@settings(max_examples=100)
@given(st.integers(0, 200_000), st.integers(10**6, 10**8), st.floats(2, 6), st.floats(-1.5, 1.5))
def test_five_tries_do_as_a_rule(fixed, weights, bits, doublings):
    """Where the budget is within a step or two of what `bits` gives."""
    curve = Curve(fixed, weights, bits)
    fill(curve, curve(doublings), weights)
    assert curve.calls <= 7  # one of them to find the budget


def test_more_than_the_finest_grids_can_take_is_the_finest_grids():
    curve = Curve(1000, 10**6, 6.0)
    assert fill(curve, 2_000_000, curve.weights) == -RANGE


def test_an_impossible_budget_names_the_smallest_size():
    curve = Curve(100_000, 10**6, 6.0)
    with pytest.raises(InputError) as error:
        fill(curve, 50_000, curve.weights)
    assert str(error.value) == (
        f"quant.target_bytes 50,000 cannot be met: on the coarsest grids the submission takes {curve(RANGE):,}; "
        "raise it, or lower model.width, model.layers or model.bigram_buckets"
    )


def test_a_jump_over_the_budget_ends_below_it():
    """Steps are rounded to few bits: some sizes may be unreachable."""

    def size_at(log2_step_scale: float) -> int:
        return 120_000 if log2_step_scale < 0.7 else 80_000

    assert size_at(fill(size_at, 100_000, 10**6)) == 80_000
