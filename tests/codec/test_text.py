"""The text codec: any text round-trips, codes in the bits it scores, and other files are refused in a sentence."""

import dataclasses
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.codec.text import SAMPLED, decode, encode, pack, unpack
from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.proof.claims import normalised
from fairway.score.hashed import HashedCounts
from fairway.score.predictor import Predictor
from fairway.score.tree import middle
from fairway.score.tree_mixture import word_starts
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from tests.plain_settings import SETTINGS

BYTES = Tokenizer.from_bytes(BYTE_MODEL)
PREDICTOR = dataclasses.replace(SETTINGS, ttt=dataclasses.replace(SETTINGS.ttt, chunk_tokens=25))
ARTIFACT = bytes(range(32))


@pytest.fixture(scope="module")
def predictor(tiny, shaken):
    """A new predictor at each call, its weights untouched by the last one's test-time training."""
    architecture = dataclasses.replace(tiny, layers=2, vocabulary_size=BYTES.vocabulary_size, bos=BYTES.bos)
    state = shaken(architecture).state_dict()

    def fresh(targets: int) -> Predictor:
        model = GPT(architecture)
        model.load_state_dict(state)
        return Predictor(model.eval(), PREDICTOR, word_starts(BYTES.pieces), targets)

    return fresh


@settings(max_examples=25)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
@example("")
@example("\0")
@example("\0\0a\0")
@example("▁ ▁▁ \ufeff\U0010ffff\r\n")
@example("long enough for two updates of test-time training at 25 tokens each, and then some")
def test_any_text_comes_back(predictor, text):
    tokens = BYTES.encode(text)[1:]
    payload, _ = encode(predictor(len(tokens)), tokens)
    content = pack(payload, ARTIFACT, len(tokens))
    back = decode(predictor(len(tokens)), *unpack(content, ARTIFACT, "x"))
    assert back.dtype == np.uint16 and BYTES.decode([BYTES.bos, *back]) == text.encode()


def test_coded_bits_are_the_scored_bits(predictor):
    tokens = BYTES.encode("It was the best of times, it was the worst of times. " * 12)[1:]
    scorer, bits, sums, told = predictor(len(tokens)), 0.0, [], []
    for token in tokens.tolist():
        distribution = scorer.distribution()
        bits -= np.log2(distribution[token])
        sums.append(distribution.sum())
        scorer.observe(token)
    payload, worst_sum = encode(predictor(len(tokens)), tokens, told.append)
    assert bits - 1 < 8 * len(payload) <= 1.001 * bits + 64
    assert worst_sum == max(sums[::SAMPLED], key=lambda total: abs(total - 1)) and abs(worst_sum - 1) < 1e-9
    assert told == [1] * len(tokens)


def test_the_same_text_gives_the_same_payload_in_whole_words(predictor):
    tokens = BYTES.encode("again")[1:]
    payload, _ = encode(predictor(5), tokens)
    assert payload == encode(predictor(5), tokens)[0] and len(payload) % 4 == 0


class Uniform:
    """A predictor of 256 equally likely tokens."""

    ranks = leaves = np.arange(256)

    def distribution(self) -> np.ndarray:
        return np.full(256, 1 / 256)

    def right(self, lo: int, hi: int, level: int) -> float:
        assert hi - lo == 256 >> level
        return 0.5

    def observe(self, token: int) -> None:
        pass


def test_the_payload_is_little_endian_words_first_token_highest():
    """Eight bits a token. The first word is exact; later ones bear the rounding of the coder's range."""
    tokens = np.frombuffer(b"abcdefgh", np.uint8)
    payload, worst_sum = encode(Uniform(), tokens)
    assert payload[:4] == b"dcba" and len(payload) <= 12 and worst_sum == 1
    assert decode(Uniform(), payload, 8).tolist() == list(b"abcdefgh")


def test_a_token_that_cannot_be_still_has_a_code():
    """A decision of probability 0 costs 24 bits, and no error."""

    class Sure(Uniform):
        def right(self, lo, hi, level):
            return float(middle(lo, hi) <= 7)

    tokens = np.array([7, 7, 9, 7])
    payload, _ = encode(Sure(), tokens)
    assert decode(Sure(), payload, 4).tolist() == [7, 7, 9, 7] and len(payload) <= 8


def test_a_predictor_that_is_no_distribution_is_caught_by_its_sum():
    class Generous(Uniform):
        def distribution(self):
            return np.full(256, 1 / 64)

    assert encode(Generous(), np.arange(40))[1] == pytest.approx(4)


def test_the_hashed_ratio_is_caught_by_its_sum(tiny, shaken, monkeypatch):
    """#885's cache as published, in buckets as full as its were: a claim fails, and says what the probabilities add up to."""
    monkeypatch.setattr(HashedCounts.__init__, "__defaults__", (64,))
    architecture = dataclasses.replace(tiny, layers=2, vocabulary_size=BYTES.vocabulary_size, bos=BYTES.bos)
    ngram = dataclasses.replace(SETTINGS.ngram, mixture="fixed", estimator="hashed_ratio")
    tokens = BYTES.encode("Whoever sums them up is in for a surprise. " * 5)[1:]
    predictors = [
        Predictor(shaken(architecture), dataclasses.replace(PREDICTOR, ngram=ngram), np.zeros(260, bool), len(tokens))
        for _ in range(2)
    ]
    payload, worst_sum = encode(predictors[0], tokens)
    claim = normalised(worst_sum, len(tokens))
    assert worst_sum > 2 and not claim.passed and claim.result == f"a sum is {worst_sum:.6g}"
    assert decode(predictors[1], payload, len(tokens)).tolist() == tokens.tolist()


def test_header_bytes():
    """Magic, version 2, eight bytes of the artifact's hash, 513 tokens, CRC-32; 24 bytes in all."""
    content = pack(b"payload!", ARTIFACT, 513)
    assert content[:8] == b"FWYT\x02\x00\x00\x00"
    assert content[8:16] == bytes(range(8))
    assert content[16:20] == b"\x01\x02\x00\x00"
    assert content[20:24] == zlib.crc32(b"payload!").to_bytes(4, "little")
    assert content[24:] == b"payload!"
    assert unpack(content, ARTIFACT, "x") == (b"payload!", 513)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: b"", "old.fwt: not a file compressed by a fairway submission; expected it to begin with b'FWYT'"),
        (lambda whole: whole[:23], "old.fwt: not a file compressed by a fairway submission"),
        (lambda whole: b"PK" + whole, "old.fwt: not a file compressed by a fairway submission"),
        (lambda whole: whole[:4] + b"\1" + whole[5:], "old.fwt: format version 1, this submission reads version 2"),
        (
            lambda whole: whole[:8] + b"\xff" + whole[9:],
            "old.fwt: compressed by submission ff01020304050607, this one is 0001020304050607; only the same file",
        ),
        (lambda whole: whole[:-1], "old.fwt: damaged, its checksum does not match; 7 bytes follow the header"),
        (lambda whole: whole[:-1] + b"?", "old.fwt: damaged, its checksum does not match; 8 bytes follow the header"),
        (lambda whole: whole + b"!", "old.fwt: damaged, its checksum does not match; 9 bytes follow the header"),
    ],
)
def test_other_files_are_refused_in_a_sentence(damage, message):
    with pytest.raises(InputError) as error:
        unpack(damage(pack(b"payload!", ARTIFACT, 513)), ARTIFACT, "old.fwt")
    assert str(error.value).startswith(message)
