"""Limits of a param, written beside its type and default, without importing a validator.

Param types live in the packages that use them, and some of those packages travel inside `submission.pyz`, where pydantic
is not installed. So a type is a frozen standard-library dataclass whose fields carry their limits as metadata;
`fairway.params` turns them into a pydantic model when it reads `params.yaml`, which must name every key all the same.
"""

import operator
from dataclasses import MISSING, field, fields
from typing import Literal, TypeVar, get_args, get_origin

Section = TypeVar("Section")
LARGEST = 2.0**53  # of a number from a file: no length, count or rate comes near


def bounded(default=MISSING, **limits):
    """A dataclass field with a default and pydantic limits: `ge`, `gt`, `le`, `lt`, `min_length`, `multiple_of`."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=limits)
    return field(default=default, metadata=limits)


def checked(cls: type[Section], content: object) -> Section:
    """A param type with values from a file that nobody vouches for, as JSON has them; what is missing has its default.

    Raises ValueError, with a few words, for an unknown or missing key, another type or a value out of range.
    """
    known = {part.name: part for part in fields(cls)}
    if not isinstance(content, dict):
        raise ValueError(f"{content!r:.99} where keys and values were expected")
    for key, value in content.items():
        if key not in known or not _is_a(known[key].type, value) or not _within(known[key].metadata, value):
            raise ValueError(f"{key!r:.99} is {value!r:.99}")
    try:
        return cls(**content)
    except TypeError as error:  # a key without a default is missing
        raise ValueError(error) from None


def _is_a(kind: type, value: object) -> bool:
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(*get_args(kind), part) for part in value)
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        return type(value) in (int, kind) and abs(value) < LARGEST  # which no NaN is
    return type(value) is kind


def _within(limits: dict, value: object) -> bool:
    return all(
        value % limit == 0 if how == "multiple_of" else getattr(operator, how)(value, limit) for how, limit in limits.items()
    )
