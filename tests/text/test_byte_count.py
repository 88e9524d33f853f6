import io
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from fairway.text import byte_count
from fairway.text.byte_count import count_bytes, table_bytes
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer, train_bpe

SAMPLE = ["the cat sat on the mat, the café was near; 1984 and 2001\n" * 5 + "a  b   c\n" * 9]
OURS = Tokenizer.from_bytes(train_bpe(SAMPLE, 310, 10**6))
BYTES = Tokenizer.from_bytes(BYTE_MODEL)


def challenge_model() -> bytes:
    """A model with the options of the challenge's sp1024: it normalises, and has pad and EOS."""
    model = io.BytesIO()
    SentencePieceTrainer.Train(
        sentence_iterator=iter(SAMPLE[0].split("\n")),
        model_writer=model,
        model_type="bpe",
        vocab_size=310,
        normalization_rule_name="nmt_nfkc",
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=False,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        minloglevel=2,
    )
    return model.getvalue()


def test_tables_are_the_challenges():
    serialized = challenge_model()
    reference = SentencePieceProcessor()
    reference.LoadFromSerializedProto(serialized)
    table = table_bytes(Tokenizer.from_bytes(serialized))
    for i in range(reference.GetPieceSize()):
        piece = reference.IdToPiece(i)
        control = reference.IsControl(i) or reference.IsUnknown(i) or reference.IsUnused(i)
        space = not control and piece.startswith("▁")
        base = 0 if control else 1 if reference.IsByte(i) else len(piece.removeprefix("▁").encode())
        assert (table.base_bytes[i], table.leading_space[i], table.boundary[i]) == (base, space, control)
        assert table.lossless_bytes[i] == base + space


def test_byte_level_counts_one_a_byte():
    table = table_bytes(BYTES)
    assert table.base_bytes.tolist() == table.lossless_bytes.tolist() == [0] * 4 + [1] * 256
    assert not table.leading_space.any() and table.boundary.tolist() == [True] * 4 + [False] * 256


@pytest.mark.parametrize("tokenizer", [OURS, BYTES], ids=["bpe", "bytes"])
@given(texts=st.lists(st.text() | st.sampled_from([" the", "  cat", " ", "▁", "a\0 b"]), min_size=1), chunk=st.integers(1, 9))
def test_lossless_count_is_the_utf8_length_without_nuls(tokenizer, texts, chunk):
    stream = np.concatenate([tokenizer.encode(text) for text in texts])
    with mock.patch.object(byte_count, "CHUNK", chunk):
        challenge, lossless = count_bytes(stream, table_bytes(tokenizer))
    expected = sum(len(text.replace("\0", "").encode()) for text in texts)
    assert lossless == expected
    after_bos = [int(target) for before, target in pairwise(stream) if before == tokenizer.bos]
    spaces = sum(tokenizer.pieces[i].startswith(b" ") and not tokenizer.is_byte[i] for i in after_bos)
    assert challenge == expected - spaces


def test_the_space_after_bos_is_what_the_challenge_leaves_out():
    stream = np.concatenate([OURS.encode(" the cat"), OURS.encode("the cat")])
    assert count_bytes(stream, table_bytes(OURS)) == (14, 15)
