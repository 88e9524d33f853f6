"""Step sizes: from bits and clip, spread over rows by what their errors cost, and scaled until the file fits a budget.

By K-FAC's estimate an error of step s in row r of a matrix costs ½ · rows_r · energy · s²/12 nats a token, with `energy`
the cost of a column's error after GPTQ; halving s costs a bit a weight whatever the row. Least loss for the bytes
therefore has rows_r · energy · s² the same everywhere: reverse water-filling, with no search over matrices. Tables gain
most: rows of rare tokens get coarse steps. On the default run this saves a sixth of the bytes at equal loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fairway.errors import InputError
from fairway.quant.config import TOLERANCE

LEAST_SHARE = 0.01  # of the mean sensitivity of a matrix's rows: rows that calibration did not meet are not worthless
AIM = 0.9996  # of the budget
RANGE = 12.0  # doublings of the step either way: beyond lie all zeros, and the largest integers
TRIES = 16


@dataclass(frozen=True)
class Rows:
    """What allocation knows of a matrix's rows: steps by `bits` and `clip`, both (R,), and how many columns there are."""

    steps: Tensor
    sensitivity: Tensor | None  # rows_r · energy; None where calibration saw nothing
    columns: int


def by_sensitivity(matrices: dict[str, Rows]) -> dict[str, Tensor]:
    """Decoder ∝ 1/√sensitivity whose mean logarithm over all weights is that of the given steps: `bits` keeps its meaning.

    Matrices without sensitivities keep their steps; rows of zeros (step 0), at home on any grid, have no say in the mean.
    """
    known = {name: rows for name, rows in matrices.items() if rows.sensitivity is not None}
    relative, total, weights = {}, 0.0, 0
    for name, rows in known.items():
        floored_R = rows.sensitivity.clamp(min=LEAST_SHARE * rows.sensitivity.mean().item())
        relative[name] = -0.5 * floored_R.log2()
        filled_R = rows.steps > 0
        total += rows.columns * (rows.steps.log2() - relative[name])[filled_R].sum().item()
        weights += rows.columns * int(filled_R.sum())
    level = total / max(weights, 1)
    return {name: (relative[name] + level).exp2() if name in relative else matrices[name].steps for name in matrices}


def fill(size_at: Callable[[float], int], budget: int, weights: int) -> float:
    """The coarseness (log2 of a factor on all steps) at which a file is at most `budget` bytes, and 0.1 % less at the least.

    `size_at` gives the real size, falling with coarseness, and is called 3 to 5 times as a rule: secants, kept between
    what is known to be too large and what fits. Where even the finest grids take less, those. Raises InputError when
    the coarsest take more.
    """
    low, high = -RANGE, RANGE
    at, slope = 0.0, -weights / 8  # bytes a doubling: one bit a weight
    before: tuple[float, int] | None = None
    for _ in range(TRIES):
        size = size_at(at)
        if (1 - TOLERANCE) * budget <= size <= budget or (at == -RANGE and size <= budget):
            return at
        if at == RANGE and size > budget:
            raise InputError(
                f"quant.target_bytes {budget:,} cannot be met: on the coarsest grids the submission takes {size:,}; "
                "raise it, or lower model.width, model.layers or model.bigram_buckets"
            )
        low, high = (at, high) if size > budget else (low, at)
        if before is not None and size != before[1]:
            slope = (size - before[1]) / (at - before[0])
        before = at, size
        at = min(max(at + (AIM * budget - size) / min(slope, -1.0), -RANGE), RANGE)
        if (at in (low, high) and abs(at) < RANGE) or not low <= at <= high:
            at = (low + high) / 2
    return high
