import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.report.passages import LENGTH, cuts, extremes, whole_characters
from fairway.score.files import SCORE

BYTES = [bytes([value]) for value in range(256)]  # a vocabulary of single bytes; NUL is the BOS


def scored(text: bytes, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = np.zeros(len(text), SCORE)
    rows["token"] = list(text)
    rows["bytes"] = rows["token"] > 0
    rows["nats"], rows["neural"] = random.exponential(1.0, (2, len(text)))
    return rows


def prose(words: int, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    return b" ".join(bytes(random.integers(97, 123, random.integers(1, 12)).astype(np.uint8)) for _ in range(words))


@given(st.binary(max_size=60))
def test_tokens_add_up_to_the_text_whatever_its_bytes(text):
    rows = scored(text)
    tokens = whole_characters(rows, BYTES)
    assert "".join(token.text for token in tokens) == text.decode(errors="backslashreplace")
    assert sum(token.after for token in tokens) == pytest.approx(float(rows["nats"].sum(dtype=float)) / math.log(2))
    assert sum(token.before for token in tokens) == pytest.approx(float(rows["neural"].sum(dtype=float)) / math.log(2))


def test_tokens_that_share_a_character_are_one():
    pieces = [b"a", "é".encode()[:1], "é".encode()[1:], b"b"]
    rows = np.zeros(4, SCORE)
    rows["token"], rows["bytes"], rows["nats"] = range(4), 1, np.array([1, 2, 3, 4]) * math.log(2)
    found = whole_characters(rows, pieces)
    assert [token.text for token in found] == ["a", "é", "b"]
    assert [token.after for token in found] == pytest.approx([1, 5, 4])


def test_passages_are_cut_at_documents_and_words_and_do_not_overlap():
    documents = [prose(300, 1), prose(150, 2), prose(7, 3)]
    text = b"\0".join(documents)
    found = cuts(scored(text), BYTES)
    assert {document for _, _, document, *_ in found} == {1, 2}  # the third is too short for one
    ends = 0
    for first, last, document, start, size, _ in found:
        body = documents[document - 1]
        assert first >= ends and LENGTH / 2 <= size <= 2 * LENGTH
        assert text[first:last].strip(b"\0") == body[start : start + size]
        assert start == 0 or body[start : start + 1] == b" "
        assert start + size == len(body) or body[start + size : start + size + 1] == b" "
        ends = last


def test_the_extremes_are_the_cheapest_and_the_dearest():
    rows = scored(prose(2000))
    bits = sorted(cost for *_, cost in cuts(rows, BYTES))
    cheap, dear = extremes(rows, BYTES, 3)
    assert [passage.bits_per_byte for passage in cheap] == bits[:3]
    assert [passage.bits_per_byte for passage in dear] == bits[-1:-4:-1]
    for passage in cheap + dear:
        assert sum(token.after for token in passage.tokens) / passage.size == pytest.approx(passage.bits_per_byte)


def test_few_passages_are_shown_once():
    cheap, dear = extremes(scored(prose(200)), BYTES)
    assert len(cheap) + len(dear) == len(cuts(scored(prose(200)), BYTES)) > 1
    assert not {passage.start for passage in cheap} & {passage.start for passage in dear}
    assert extremes(scored(b"too short"), BYTES) == ([], [])


def test_text_without_spaces_is_cut_between_characters():
    text = ("語" * 500).encode()
    found = cuts(scored(text), BYTES)
    assert found and all(text[first:last].decode() for first, last, *_ in found)
