"""JSON of strangers: whatever stands there is an object, a number, or nothing; nothing is raised."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof import ledgers, untrusted
from fairway.proof.ledgers import Ledger

HONEST = {"stage": "train", "learned_from": "train", "tokens": 9000, "val_tokens_before_scoring": 0}
NOTHING = [
    b"", b"null", b"[]", b"{", b'{"a": 1', b'"x"', b"7", b"nan", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}',
    b"[" * 200_000, b'{"a":' * 200_000, b"\xff\xfe{}", b'{"a": ' + b"9" * 5000 + b"}",
]  # fmt: skip


@pytest.mark.parametrize("content", NOTHING, ids=range(len(NOTHING)))
def test_what_is_no_object_is_an_empty_one(content):
    assert untrusted.parsed(content) == {}
    assert untrusted.parsed(content.decode(errors="replace")) == {}


def test_an_object_is_itself():
    assert untrusted.parsed(json.dumps(HONEST)) == HONEST


@pytest.mark.parametrize("value", [0, -1.5, 2**53, 1e15])
def test_a_finite_number_is_one(value):
    assert untrusted.number(value) == value


@pytest.mark.parametrize("value", [None, True, "1", [1], {}, math.nan, math.inf, -math.inf, 10**400, -(2**53) - 1, 1e300])
def test_what_is_no_number_is_none(value):
    assert untrusted.number(value) is None and untrusted.count(value) is None


@pytest.mark.parametrize("value", [-1, 1.0, 2**53 + 1])
def test_what_is_no_count_is_none(value):
    assert untrusted.count(value) is None


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=9))
def test_every_value_can_be_shown(value):
    assert len(untrusted.shown(value)) <= 41


def test_values_too_large_for_python_to_print_are_named():
    assert untrusted.shown(10**5000) == "a int that is too long to show"


def test_an_honest_ledger():
    assert ledgers.read("train", json.dumps(HONEST).encode()) == Ledger("train", 9000, 0)
    assert ledgers.read("train", json.dumps(HONEST | {"learned_from": "none", "tokens": 0}).encode()) == Ledger("none", 0, 0)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"stage": "quant"}, "the ledger is of 'quant'"),
        ({"stage": None}, "the ledger is of None"),
        ({"learned_from": "web"}, "learned_from is 'web', expected one of train, holdout, val, none"),
        ({"learned_from": ["train"]}, "learned_from is ['train'], expected one of train, holdout, val, none"),
        ({"tokens": -1}, "tokens is -1, expected a whole number from 0"),
        ({"tokens": True}, "tokens is True, expected a whole number from 0"),
        ({"val_tokens_before_scoring": "0"}, "val_tokens_before_scoring is '0', expected a whole number from 0"),
        ({"val_tokens_before_scoring": -5}, "val_tokens_before_scoring is -5, expected a whole number from 0"),
        ({"val_tokens_before_scoring": None}, "val_tokens_before_scoring is None, expected a whole number from 0"),
        ({"val_tokens_before_scoring": 1e300}, "val_tokens_before_scoring is 1e+300, expected a whole number from 0"),
        ({"learned_from": "val"}, "learned from 9,000 tokens of val, of which 0 are validation tokens: it contradicts itself"),
        (
            {"val_tokens_before_scoring": 9001},
            "learned from 9,000 tokens of train, of which 9,001 are validation tokens: it contradicts itself",
        ),
    ],
)
def test_a_ledger_that_lies_about_types_or_itself_proves_nothing(change, problem):
    assert ledgers.read("train", json.dumps(HONEST | change).encode()) == problem


@pytest.mark.parametrize("content", NOTHING, ids=range(len(NOTHING)))
def test_a_ledger_that_is_none_proves_nothing(content):
    assert ledgers.read("train", content) == "no ledger, which is a JSON object"


@given(st.binary())
def test_no_ledger_is_raised_over(content):
    assert isinstance(ledgers.read("train", content), str)
