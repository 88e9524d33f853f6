"""Limits of a param, written beside its type, without importing a validator.

The param types live in the rooms that use them, and some of those rooms travel inside `submission.pyz`, where pydantic
is not at hand. So a type is a frozen standard-library dataclass whose fields carry their limits as metadata;
`fairway.params` turns them into a pydantic model when it reads `params.yaml`.
"""

from dataclasses import field


def bounded(**limits):
    """A dataclass field with pydantic limits: `ge`, `gt`, `le`, `lt`, `min_length`, `multiple_of`."""
    return field(metadata=limits)
