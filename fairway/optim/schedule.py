"""Schedules as pure functions of the fraction of training that is done, 0 to 1."""


def warmdown(done: float, fraction: float) -> float:
    """Learning-rate multiplier: 1, then linear to 0 over the last `fraction` of training."""
    return min(1.0, (1 - done) / fraction) if fraction else 1.0


def momentum(step: int, final: float, warmup_steps: int, start: float = 0.85) -> float:
    """Muon's momentum, linear from `start` to `final` over `warmup_steps`."""
    return final if step >= warmup_steps else start + (final - start) * step / warmup_steps
