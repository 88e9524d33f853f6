"""The seconds that each part of the pipeline took, and the limit that each counts toward.

They come from reports/*/timing.json and differ between runs, so certificate.md shows them, and certificate.json only when a
limit is exceeded. Training is every part that reads training text; evaluation is every part from the artifact to the
scores (challenge's #677). Every part has a clock, so no work goes uncounted between stages.
"""

from typing import NamedTuple

from fairway.proof.untrusted import number

Timings = dict[str, dict]  # objects in timing.json by stage, whatever they hold; a stage without the file is absent


class Clock(NamedTuple):
    name: str
    part: str  # "train", "eval", or "" if it counts toward neither limit
    seconds: float | None  # from 0; None for anything else


def read(timings: Timings) -> list[Clock]:
    """All clocks, in the order of the pipeline. A negative, infinite or textual time is none."""

    def seconds(stage: str, key: str = "seconds") -> float | None:
        found = number(timings.get(stage, {}).get(key))
        return None if found is None or found < 0 else found

    whole, calibration = seconds("quant"), seconds("quant", "calibration_seconds")
    rest = None if None in (whole, calibration) or whole < calibration else whole - calibration
    return [
        Clock("compile (train)", "", seconds("train", "compile_seconds")),
        Clock("train", "train", seconds("train")),
        Clock("prequant_ttt", "train", seconds("prequant_ttt")),
        Clock("calibration", "train", calibration),
        Clock("quantise", "", rest),
        Clock("compress weights", "", seconds("compress", "encode_seconds")),
        Clock("decode weights", "eval", seconds("compress", "decode_seconds")),
        Clock("score (eval_sliding)", "", seconds("eval_sliding")),
        Clock("score (eval_ttt)", "eval", seconds("eval_ttt")),
        Clock("score (eval_ngram)", "eval", seconds("eval_ngram")),
    ]


def missing(clocks: list[Clock]) -> list[str]:
    return [clock.name for clock in clocks if clock.seconds is None]


def total(clocks: list[Clock]) -> float:
    """Sum of the known seconds."""
    return sum(clock.seconds or 0.0 for clock in clocks)
