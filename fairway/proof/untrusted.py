"""JSON that a stage or a submission wrote, read without believing it: whatever is there, nothing is raised."""

import json

LARGEST = 2**53  # beyond it a float does not hold every whole number


def parsed(content: bytes | str) -> dict:
    """A JSON object; {} for anything else: cut off, nested too deeply, with NaN or Infinity, a list, nothing at all."""
    try:
        found = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def number(value: object) -> float | None:
    """A finite number; None for anything else: a truth value, a text, an integer of 400 digits."""
    if type(value) not in (int, float) or not -LARGEST <= value <= LARGEST:  # False for NaN
        return None
    return float(value)


def count(value: object) -> int | None:
    """A whole number from 0; None for anything else."""
    return value if type(value) is int and 0 <= value <= LARGEST else None


def shown(value: object, length: int = 40) -> str:
    """A value in a sentence, cut to `length` characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more digits than Python prints; a list in lists
        text = f"a {type(value).__name__} that is too long to show"
    return text if len(text) <= length else f"{text[:length]}…"


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
