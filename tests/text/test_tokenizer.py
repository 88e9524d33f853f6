import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from fairway.errors import InputError
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer, read_tokenizer, train_bpe

WORDS = "the quick brown fox and the quick lazy dog; née in Łódź 2024\n"
SAMPLE = [WORDS.replace("o", vowel) * 3 + "\n\n\t x  y   z\r\n" for vowel in "oaeiu"]
MODEL = train_bpe(SAMPLE, 330, 10**6)
BPE, BYTES = Tokenizer.from_bytes(MODEL), Tokenizer.from_bytes(BYTE_MODEL)

# Any text, and text made of what SentencePiece treats apart.
TRICKY = st.lists(
    st.sampled_from(["\0", "▁", "▅", " ", "\n", "\t", "\r", "<s>", "<unk>", "<0x0A>", "\ufeff", "é", "e\u0301", "the", "ﬁ"])
)
TEXT = st.text() | TRICKY.map("".join)


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
@given(text=TEXT)
@example("▁▁ ▁\0\0 \0")
def test_any_text_survives(tokenizer, text):
    tokens = tokenizer.encode(text)
    assert tokens.dtype == np.uint16 and tokens[0] == tokenizer.bos
    assert tokenizer.decode(tokens) == text.encode()
    assert (tokens < tokenizer.vocabulary_size).all()


@pytest.mark.parametrize("tokenizer", [BPE, BYTES], ids=["bpe", "bytes"])
@given(texts=st.lists(TEXT, min_size=1))
def test_a_stream_of_documents_is_their_text_joined_by_nul(tokenizer, texts):
    stream = np.concatenate([tokenizer.encode(text) for text in texts])
    assert np.array_equal(stream, tokenizer.encode("\0".join(texts)))
    assert tokenizer.decode(stream) == "\0".join(texts).encode()


@given(TEXT)
def test_bytes_are_the_challenges_byte260(text):
    expected = [1] + [1 if value == 0 else value + 4 for value in text.encode()]
    assert BYTES.encode(text).tolist() == expected


def test_decode_without_a_bos_in_front():
    ids = BPE.encode(" the\0 dog").tolist()
    assert BPE.decode(ids[1:]) == BPE.decode(ids) == b" the\0 dog"
    assert BPE.decode([]) == b""


def test_pieces_agree_with_sentencepiece():
    reference = SentencePieceProcessor()
    reference.LoadFromSerializedProto(MODEL)
    assert BPE.vocabulary_size == reference.GetPieceSize() == 330
    assert BPE.pieces[:2] == [b"", b"\0"] and BPE.bos == 1 and BPE.is_control.tolist() == [True] * 2 + [False] * 328
    assert BPE.pieces[2:258] == [bytes([value]) for value in range(256)] and BPE.is_byte.sum() == 256
    # A NUL in front keeps SentencePiece from dropping a leading space.
    assert [reference.Decode([2, i]).encode()[1:] for i in range(258, 330)] == BPE.pieces[258:]
    assert b" quick" in BPE.pieces


def test_merges_shorten_the_text():
    assert len(BPE.encode(SAMPLE[0])) < len(SAMPLE[0].encode()) / 2


def test_same_text_same_model_in_another_process():
    program = (
        "import sys; from fairway.text.tokenizer import train_bpe; sys.stdout.buffer.write(train_bpe(sys.argv[1:], 330, 10**6))"
    )
    run = subprocess.run([sys.executable, "-c", program, *SAMPLE], capture_output=True, check=True)
    assert run.stdout == MODEL
    assert run.stderr == b""  # the trainer is quiet


def test_long_lines_and_reserved_characters_are_not_dropped():
    # One line far above SentencePiece's default limit of 4,192 bytes, with the characters that make it skip a line.
    text = "\t▅▁\0".join(["zyxzyx"] * 2_000)
    assert b"zyxzyx" in Tokenizer.from_bytes(train_bpe([text], 266, 10**6)).pieces


def test_the_sample_ends_at_its_bytes():
    beginning = "abab cdcd " * 20 + "é"
    cut = len(beginning.encode()) - 1  # in the middle of the é
    assert train_bpe([beginning, "never " * 50], 266, cut) == train_bpe([beginning[:-1]], 266, 10**6)


def test_more_characters_than_places_go_to_bytes():
    rare = "".join(chr(0x4E00 + n) for n in range(2_000))
    tokenizer = Tokenizer.from_bytes(train_bpe([*SAMPLE * 50, rare], 330, 10**6))
    assert tokenizer.vocabulary_size == 330 and b" quick" in tokenizer.pieces
    assert tokenizer.decode(tokenizer.encode(rare)) == rare.encode()
    assert len(tokenizer.encode(rare)) == 1 + 3 * len(rare)


@pytest.mark.parametrize("texts", [["abc abd"], ["\n"]])
def test_too_little_text_says_what_is_possible(texts):
    with pytest.raises(InputError) as caught:
        train_bpe(texts, 4000, 10**6)
    message = str(caught.value)
    assert message.startswith("tokenize.vocabulary_size is 4000, too large") and "\n" not in message
    if texts == ["abc abd"]:
        largest = int(message.split("the largest possible is ")[1].split(";")[0])
        assert Tokenizer.from_bytes(train_bpe(texts, largest, 10**6)).vocabulary_size == largest


def test_models_that_are_none_or_unfit():
    with pytest.raises(InputError, match="is not a SentencePiece model"):
        Tokenizer.from_bytes(b"nonsense")
    for option, words in (({"bos_id": -1}, "BOS id -1"), ({"byte_fallback": False}, "0 byte pieces")):
        model = io.BytesIO()
        options = {
            "byte_fallback": True,
            "model_type": "bpe",
            "vocab_size": 300,
            "minloglevel": 2,
            "hard_vocab_limit": False,
        } | option
        SentencePieceTrainer.Train(sentence_iterator=iter(SAMPLE), model_writer=model, **options)
        with pytest.raises(InputError, match=words):
            Tokenizer.from_bytes(model.getvalue())


@pytest.mark.parametrize("advice", ["run `dvc repro` to write it again", "give another"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, advice):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError) as error:
        read_tokenizer(path, *([advice] if advice.startswith("give") else []))
    assert str(error.value) == f"{path}: the tokenizer model (8 bytes) is not a SentencePiece model; {advice}"
    path.unlink()
    with pytest.raises(InputError) as error:
        read_tokenizer(path)
    assert str(error.value) == f"{path}: missing; run `dvc repro` to write it again"
    path.write_bytes(MODEL)
    assert read_tokenizer(path).pieces == BPE.pieces


def test_a_model_with_any_bit_flipped_is_read_or_refused_in_a_sentence(tmp_path):
    """SentencePiece's own errors, and its pieces, may be no UTF-8."""
    path, random, refused = tmp_path / "tokenizer.model", np.random.default_rng(0), 0
    for place, bit in zip(random.integers(len(MODEL), size=800), random.integers(8, size=800), strict=True):
        path.write_bytes(MODEL[:place] + bytes([MODEL[place] ^ 1 << bit]) + MODEL[place + 1 :])
        try:
            read_tokenizer(path)
        except InputError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
            refused += 1
    assert 100 < refused < 800
