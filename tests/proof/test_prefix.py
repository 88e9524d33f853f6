"""Where a stream may be cut: what is cut off encodes to itself, is never longer than wanted, and is as long as it can be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway.errors import InputError
from fairway.proof.prefix import cut
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer, train_bpe

WORDS = "the people of our country have done great work in peace and in war, with one hope — so be it".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 40)) + f"\nNo. {i}" for i in range(1, 30)]
BPE = Tokenizer.from_bytes(train_bpe(TEXTS, 320, 6000))
BYTES = Tokenizer.from_bytes(BYTE_MODEL)
# Words that the vocabulary knows, the characters that are cut at or spelt in bytes, and whatever else there is.
PIECES = st.sampled_from([*WORDS, " ", "  ", "\0", "\n", "\t", "▁", "▅", "é", "€", "🏌"]) | st.text(max_size=3)
TEXT = st.lists(PIECES, max_size=20).map("".join)


def check(tokenizer: Tokenizer, text: str, wanted: int) -> None:
    stream = tokenizer.encode(text)
    try:
        tokens, spelt = cut(stream, tokenizer, wanted)
    except InputError as error:
        assert str(error) == f"certify.tokens: no place to cut the first {wanted:,} validation tokens; raise it"
        assert wanted < len(stream) - 1 or len(stream) == 1
        return
    assert 1 <= len(tokens) - 1 <= wanted
    assert np.array_equal(tokens, stream[: len(tokens)])
    assert text.encode().startswith(spelt)
    assert np.array_equal(tokenizer.encode(spelt.decode()), tokens)
    if wanted >= len(stream) - 1:
        assert spelt == text.encode()


@settings(max_examples=150)
@given(TEXT, st.integers(1, 40))
def test_a_bpe_prefix_encodes_to_itself(text, wanted):
    check(BPE, text, wanted)


@settings(max_examples=150)
@given(TEXT, st.integers(1, 40))
def test_a_byte_prefix_ends_before_the_last_space_or_document(text, wanted):
    check(BYTES, text, wanted)
    content = text.encode()
    places = [end for end in range(1, min(wanted, len(content)) + 1) if content[end : end + 1] in (b" ", b"\0", b"")]
    if places:
        assert cut(BYTES.encode(text), BYTES, wanted)[1] == content[: places[-1]]
    else:
        with pytest.raises(InputError):
            cut(BYTES.encode(text), BYTES, wanted)


def test_of_a_long_text_nearly_all_that_is_wanted_is_kept():
    stream = BPE.encode("\0".join(TEXTS))
    for wanted in (100, 101, 102, 500):
        tokens, text = cut(stream, BPE, wanted)
        assert wanted - 12 < len(tokens) - 1 <= wanted
        assert "\0".join(TEXTS).encode().startswith(text)


def test_the_whole_stream_where_it_is_short():
    stream = BPE.encode(TEXTS[0])
    for wanted in (len(stream) - 1, len(stream), 10**6):
        tokens, text = cut(stream, BPE, wanted)
        assert np.array_equal(tokens, stream) and text == TEXTS[0].encode()


def test_a_document_may_end_the_prefix():
    tokens, text = cut(BYTES.encode("abc\0defgh"), BYTES, 6)
    assert text == b"abc" and len(tokens) == 4


@pytest.mark.parametrize(("text", "wanted"), [("word", 3), ("é", 1), ("", 5), ("word word", 3)])
def test_no_place_to_cut_gets_a_sentence(text, wanted):
    with pytest.raises(InputError, match=rf"^certify\.tokens: no place to cut the first {wanted} validation tokens; raise it$"):
        cut(BYTES.encode(text), BYTES, wanted)
