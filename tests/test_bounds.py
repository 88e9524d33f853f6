"""Param types with values from a file that nobody vouches for."""

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.bounds import bounded, checked
from fairway.errors import InputError
from fairway.lm.config import Architecture
from tests.plain_settings import NGRAM, SETTINGS


@dataclasses.dataclass(frozen=True)
class Section:
    count: int = bounded(4, ge=1, le=256)
    even: int = bounded(64, ge=0, multiple_of=2)
    rate: float = bounded(0.5, gt=0, lt=1)
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    layers: list[int] = bounded([])
    needed: int = bounded(ge=2, default=2)


@pytest.mark.parametrize(
    "content",
    [{}, {"count": 256, "even": 2, "rate": 0.1, "kind": "b", "flag": True, "layers": [1, -1], "needed": 9}],
)
def test_what_is_right_is_taken(content):
    assert checked(Section, content) == Section(**content)


@pytest.mark.parametrize(
    "content",
    [
        *(None, [], "text", 3),
        *({"count": value} for value in (0, 257, 1.0, "4", True, None, [4], 10**400)),
        *({"even": value} for value in (3, -2, 2**60)),
        *({"rate": value} for value in (0, 1, float("nan"), float("inf"), "0.5", None, False)),
        *({"kind": value} for value in ("c", None, ["a"], {})),
        *({"flag": value} for value in (1, "true", None)),
        *({"layers": value} for value in (1, None, [1.0], [True], [[1]], [2**60], {"1": 1})),
        {"counts": 4},
        {"\x1b[2J": 4},
    ],
)
def test_what_is_not_is_refused(content):
    with pytest.raises(ValueError):
        checked(Section, content)


def test_a_missing_key_is_refused():
    with pytest.raises(ValueError, match="vocabulary_size"):
        checked(Architecture, {"bos": 1, "sequence_length": 16})


def test_what_a_type_says_itself_stays_its_sentence():
    needed = {"vocabulary_size": 64, "bos": 1, "sequence_length": 16}
    assert checked(Architecture, needed) == Architecture(**needed)
    with pytest.raises(InputError, match="not divisible"):
        checked(Architecture, needed | {"width": 33})


@given(st.sampled_from([SETTINGS.eval, SETTINGS.ttt, SETTINGS.cache, NGRAM]))
def test_sections_come_back_from_json(section):
    assert checked(type(section), json.loads(json.dumps(dataclasses.asdict(section)))) == section
