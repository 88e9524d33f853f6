"""The section `certify`: a number of tokens, or all of them."""

import dataclasses

import pytest

from fairway.errors import InputError
from fairway.params import parse
from fairway.proof.config import Certify

PLAIN = dataclasses.asdict(Certify())


@pytest.mark.parametrize(("tokens", "wanted"), [(1, 1), (10_000, 600), ("all", 600)])
def test_how_much_is_coded(tokens, wanted):
    assert parse(PLAIN | {"tokens": tokens}, "certify", Certify).wanted(600) == wanted


@pytest.mark.parametrize("tokens", [0, -3, 1.5, "some", True, [1], None])
def test_what_is_no_amount_is_refused(tokens):
    with pytest.raises(InputError) as error:
        parse(PLAIN | {"tokens": tokens}, "certify", Certify)
    assert str(error.value) == f'certify.tokens is {tokens!r}; expected a whole number at least 1, or "all"'


def test_a_missing_amount_is_named():
    with pytest.raises(InputError) as error:
        parse({name: value for name, value in PLAIN.items() if name != "tokens"}, "certify", Certify)
    assert str(error.value) == "params: key 'certify.tokens' is missing; expected a whole number at least 1, or \"all\""


def test_a_misspelt_key_is_named():
    with pytest.raises(InputError) as error:
        parse(PLAIN | {"tokns": 3}, "certify", Certify)
    assert str(error.value) == "params: unknown key 'certify.tokns'; the nearest valid key is 'certify.tokens'"
