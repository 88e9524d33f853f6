"""Limits of a param, written beside its type and default, without importing a validator.

Param types live in the packages that use them, and some of those packages travel inside `submission.pyz`, where pydantic
is not installed. So a type is a frozen standard-library dataclass whose fields carry their limits as metadata;
`fairway.params` turns them into a pydantic model when it reads `params.yaml`, which must name every key all the same.
"""

from dataclasses import MISSING, field


def bounded(default=MISSING, **limits):
    """A dataclass field with a default and pydantic limits: `ge`, `gt`, `le`, `lt`, `min_length`, `multiple_of`."""
    if isinstance(default, list):
        return field(default_factory=default.copy, metadata=limits)
    return field(default=default, metadata=limits)
