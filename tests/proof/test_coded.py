"""The size of a compressed text is read off its bytes, and whatever else could hide text in it is refused."""

import pytest

from fairway.errors import InputError
from fairway.proof.coded import Coded, measure
from tests.proof.standin import coded

FULL = 65_536


def test_blocks_and_payload_are_counted():
    assert measure(coded((FULL, b"x" * 1000), (40, b"y" * 12))) == Coded(FULL + 40, 2, 1012, "this one")
    assert measure(coded()) == Coded(0, 0, 0, "this one")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the compressed text has 0 bytes, less than a header"),
        (b"FWYX" + coded()[4:], "the compressed text begins with b'FWYX' 3, expected b'FWYT' 3"),
        (coded((4, b"abcd"), name=b"n" * 257), "the compressed text spends 257 bytes on its arithmetic, 256 are enough"),
        (coded((4, b"abcd"), tail=b"hidden"), "the compressed text has 64 bytes, its blocks end at 58"),
        (coded((4, b"abcd"))[:-1], "the compressed text has 57 bytes, its blocks end at 58"),
        (coded((1, b""), (1, b"")), "the compressed text holds 2 tokens in 2 blocks, expected 2 in 1"),
        (coded((4, b"abcd"), tokens=9), "the compressed text holds 4 tokens in 1 blocks, expected 9 in 1"),
    ],
    ids=["nothing", "foreign", "long name", "something behind", "cut off", "tiny blocks", "wrong count"],
)
def test_what_could_hide_text_is_refused(content, sentence):
    with pytest.raises(InputError) as error:
        measure(content)
    assert str(error.value) == sentence
