"""Any bytes become tokens and come back, in bounded memory, and text gets the tokens that `encode` gives it."""

import io
import itertools
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sentencepiece import SentencePieceTrainer

from fairway.text import tokenizer as module
from fairway.text.corpus import normalises
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer, train_bpe

WORDS = "the quick brown fox and the quick lazy dog; née in Łódź 2024\n"
SAMPLE = [WORDS.replace("o", vowel) * 3 for vowel in "oaeiu"]


def normalising_model(**options) -> bytes:
    """One that changes text, as the challenge's own does."""
    model = io.BytesIO()
    SentencePieceTrainer.Train(
        sentence_iterator=iter(SAMPLE),
        model_writer=model,
        model_type="bpe",
        vocab_size=330,
        normalization_rule_name="nmt_nfkc",
        byte_fallback=True,
        bos_id=1,
        eos_id=-1,
        unk_id=0,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


LOSSLESS = {
    "bpe": Tokenizer.from_bytes(train_bpe(SAMPLE, 330, 10**6)),
    "bytes": Tokenizer.from_bytes(BYTE_MODEL),
}
NORMALISING = {
    "nfkc": Tokenizer.from_bytes(normalising_model(add_dummy_prefix=False)),
    "nfkc with a space put in front": Tokenizer.from_bytes(normalising_model()),
}
ALL = LOSSLESS | NORMALISING

PARTS = ["\0", "▁", "▅", " ", "\n", "\r\n", "\t", "<s>", "<unk>", "<0x0A>", "\ufeff", "é", "e\u0301", "ﬁ", "the", "\x7f"]
HALVES = [b"\x80", b"\xff", b"\xe2\x96", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x01\x1f"]
TEXT = st.text() | st.lists(st.sampled_from(PARTS)).map("".join)
BYTES = st.binary() | st.lists(st.sampled_from([part.encode() for part in PARTS] + HALVES)).map(b"".join)
RUN = st.sampled_from([4, 5, 7, 1 << 20])


@contextmanager
def runs_of(size: int):
    before, module.RUN = module.RUN, size
    try:
        yield
    finally:
        module.RUN = before


def tokens_of(tokenizer: Tokenizer, chunks: list[bytes]) -> np.ndarray:
    pieces = list(tokenizer.encode_bytes(chunks))
    assert all(piece.dtype == np.uint16 for piece in pieces)
    return np.concatenate([np.array([tokenizer.bos], np.uint16), *pieces])


def cut_up(content: bytes, data: st.DataObject) -> list[bytes]:
    places = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    return [content[start:end] for start, end in itertools.pairwise([0, *places, len(content)])]


@pytest.mark.parametrize("tokenizer", ALL.values(), ids=ALL)
@given(content=BYTES, run=RUN, data=st.data())
@example(bytes(range(256)) * 2, 1 << 20, None)
@example(b"\x80" * 9 + b"\0" + b"\x80" * 9, 4, None)
@example(b"", 4, None)
def test_any_bytes_come_back_and_the_chunks_do_not_matter(tokenizer, content, run, data):
    with runs_of(run):
        tokens = tokens_of(tokenizer, [content])
        assert tokenizer.decode(tokens) == content
        if data is not None:
            assert np.array_equal(tokens, tokens_of(tokenizer, cut_up(content, data)))


@pytest.mark.parametrize("tokenizer", LOSSLESS.values(), ids=LOSSLESS)
@given(text=TEXT, run=RUN, data=st.data())
def test_text_gets_the_tokens_that_encode_gives_it(tokenizer, text, run, data):
    with runs_of(run):
        assert np.array_equal(tokens_of(tokenizer, cut_up(text.encode(), data)), tokenizer.encode(text))


def test_a_cut_after_a_newline_changes_no_token():
    text = "".join(SAMPLE)
    whole = LOSSLESS["bpe"].encode(text)
    with runs_of(100):
        assert np.array_equal(LOSSLESS["bpe"].encode(text), whole)
        assert len(list(LOSSLESS["bpe"].encode_bytes([text.encode()]))) > len(text) / 100


@pytest.mark.parametrize(
    ("content", "runs"),
    [
        (b"12345678", [b"12345678"]),
        (b"123456789", [b"12345678", b"9"]),
        (b"1234567\0" + b"12345678\0", [b"1234567", b"12345678", b""]),
        (b"12\n45\n789", [b"12\n45\n", b"789"]),
        (b"1234567\n9", [b"1234567\n", b"9"]),
        ("12345678é".encode(), [b"12345678", "é".encode()]),
        ("1234567é".encode(), [b"1234567", "é".encode()]),
        ("12345😀".encode(), [b"12345", "😀".encode()]),
        (b"123" + b"\x80" * 7, [b"123" + b"\x80" * 5, b"\x80" * 2]),
    ],
)
def test_where_runs_end(content, runs):
    with runs_of(8):
        assert [run for _, run in module.split_parts([content])] == runs


def test_only_the_lines_at_fault_are_spelt():
    """The ligature would become "fi": its line is in bytes, newlines too, and the others keep their pieces."""
    tokenizer = NORMALISING["nfkc"]
    (tokens,) = tokenizer.encode_bytes(["the quick\nof ﬁsh\nthe quick".encode()])
    quick = tokenizer.encode("the quick")[1:].tolist()
    spelt = [tokenizer.pieces.index(bytes([value])) for value in "\nof ﬁsh\n".encode()]
    assert tokens.tolist() == quick + spelt + quick and len(quick) < 5


def test_encode_still_shows_what_a_normaliser_loses():
    assert [normalises(tokenizer) for tokenizer in ALL.values()] == [False, False, True, True]


@pytest.mark.parametrize("tokenizer", [LOSSLESS["bpe"], NORMALISING["nfkc"]], ids=["bpe", "nfkc"])
def test_memory_does_not_grow_with_the_stream(tokenizer):
    """400 chunks of 10,000 bytes, without a newline or a NUL, take what 40 take."""

    def peak(chunks: int) -> int:
        tracemalloc.start()
        total = sum(len(piece) for piece in tokenizer.encode_bytes(WORDS[:-1].encode() * 100 for _ in range(chunks)))
        assert total > 1000 * chunks
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    with runs_of(1 << 14):
        assert peak(400) < 1.2 * peak(40)
