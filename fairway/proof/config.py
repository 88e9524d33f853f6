"""The section `certify`."""

from dataclasses import dataclass

from fairway.bounds import bounded


@dataclass(frozen=True)
class Certify:
    tokens: int = bounded(ge=2)
    causality_checks: int = bounded(ge=1, le=1000)
