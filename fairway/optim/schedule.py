"""Schedules as pure functions of the fraction of training that is done, 0 to 1, or of the step."""

import math
from typing import Literal


def warmdown(done: float, fraction: float, shape: Literal["linear", "cosine"] = "linear", minimum: float = 0.0) -> float:
    """Learning-rate multiplier: 1, then down to `minimum` over the last `fraction` of training.

    Linear falls towards 0 and stops at `minimum` on the way (MIN_LR of #1787: a floor, the slope stays); cosine ends there.
    """
    if done <= 1 - fraction:
        return 1.0
    left = (1 - done) / fraction
    if shape == "linear":
        return max(minimum, left)
    return minimum + (1 - minimum) * (1 - math.cos(math.pi * left)) / 2


def momentum(step: int, start: float, final: float, warmup_steps: int) -> float:
    """Muon's momentum, linear from `start` to `final` over `warmup_steps`."""
    return final if step >= warmup_steps else start + (final - start) * step / warmup_steps


def weight_decay_factor(done: float, final: float, taper: float) -> float:
    """Weight-decay multiplier: 1, then linear to `final` over the last `taper` of training (#1729)."""
    return 1.0 if done <= 1 - taper else final + (1 - final) * (1 - done) / taper
