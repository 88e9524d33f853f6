"""Step sizes: how to spread them over rows by what rounding errors cost, and how to scale them until a file fits a budget.

By K-FAC's estimate, rounding row r of a matrix with step s costs ½ · fisher_r · energy · s²/12 nats per token, where `energy`
is the mean cost of a squared column error after GPTQ. Halving s costs one bit per weight in every row. The loss for a given
number of bytes is therefore least where fisher_r · energy · s² is equal for all rows (reverse water-filling); no search over
matrices is needed. Tables gain most, because rows of rare tokens get large steps. On the default run this saves a sixth of
the bytes at equal loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from fairway.errors import InputError
from fairway.quant.config import TOLERANCE

LEAST_SHARE = 0.01  # of the mean sensitivity of a matrix's rows: also rows that calibration did not reach have some value
AIM = 0.9996  # fraction of the budget that the search aims at
RANGE = 12.0  # doublings of the step in either direction: beyond it all integers are 0, or at their limit
TRIES = 16


@dataclass(frozen=True)
class Rows:
    """The rows of one matrix: their steps by `bits` and `clip`, their sensitivities, both (R,), and the number of columns."""

    steps: Tensor
    sensitivity: Tensor | None  # fisher_r · energy; None where calibration measured nothing
    columns: int


def by_sensitivity(matrices: dict[str, Rows]) -> dict[str, Tensor]:
    """Steps (R,) by name, proportional to 1/√sensitivity, with the same mean logarithm over all weights as the given steps.

    The fixed mean keeps the meaning of `quant.bits`. Matrices without sensitivities keep their steps. Rows of zeros (step 0)
    fit on any grid and do not count in the mean.
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
    """Log2 of the factor on all steps with which a file takes at most `budget` bytes and at most 0.1 % less.

    `size_at` returns the real size in bytes for such a logarithm; it decreases, and is called 3 to 5 times as a rule. The
    search takes secant steps, bracketed between a scale whose file is too large and one whose file fits. Returns the
    smallest steps where even these take less. Raises InputError when the largest steps take more.
    """
    low, high = -RANGE, RANGE
    at, slope = 0.0, -weights / 8  # bytes per doubling: one bit per weight
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
