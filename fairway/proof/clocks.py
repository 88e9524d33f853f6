"""How long each part took, each on its own clock: nothing is left off the clock by being done between two stages.

The clocks are those of reports/*/timing.json, which differ from run to run; so they are shown in certificate.md, and in
certificate.json only where a limit is not kept. Which of them count: training is all that has seen training text,
evaluation all that happens from the artifact to the scores (challenge's #677).
"""

from typing import NamedTuple

Timings = dict[str, dict[str, float]]  # contents of timing.json by stage; none where it is missing


class Clock(NamedTuple):
    name: str
    part: str  # "train", "eval", or "" where neither limit counts it
    seconds: float | None  # None: unknown


def read(timings: Timings) -> list[Clock]:
    """All clocks, in the order of the pipeline."""

    def seconds(stage: str, key: str = "seconds") -> float | None:
        return timings.get(stage, {}).get(key)

    whole, calibration = seconds("quant"), seconds("quant", "calibration_seconds")
    return [
        Clock("compile (train)", "", seconds("train", "compile_seconds")),
        Clock("train", "train", seconds("train")),
        Clock("prequant_ttt", "train", seconds("prequant_ttt")),
        Clock("calibration", "train", calibration),
        Clock("quantise", "", None if None in (whole, calibration) else whole - calibration),
        Clock("compress weights", "", seconds("compress", "encode_seconds")),
        Clock("decode weights", "eval", seconds("compress", "decode_seconds")),
        Clock("score (eval_sliding)", "", seconds("eval_sliding")),
        Clock("score (eval_ttt)", "eval", seconds("eval_ttt")),
        Clock("score (eval_ngram)", "eval", seconds("eval_ngram")),
    ]


def missing(clocks: list[Clock]) -> list[str]:
    return [clock.name for clock in clocks if clock.seconds is None]


def total(clocks: list[Clock]) -> float:
    """Seconds on the clocks that are known."""
    return sum(clock.seconds or 0.0 for clock in clocks)
