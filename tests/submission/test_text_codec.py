"""The text codec: any text round-trips, and codes in the bits it scores; tests/codec/test_compressed_file.py has the file."""

import dataclasses

import constriction
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fairway.lm.model import GPT
from fairway.mixture.hashed_counts import HashedCounts
from fairway.mixture.tree import middle
from fairway.mixture.tree_mixture import word_starts
from fairway.proof.claims import normalised
from fairway.score.predictor import Predictor
from fairway.submission.text import SAMPLED, Bernoulli, bits, decode, encode, follow
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer
from tests.plain_settings import SETTINGS
from tests.submission.simple_predictors import Uniform

BYTES = Tokenizer.from_bytes(BYTE_MODEL)
PREDICTOR = dataclasses.replace(SETTINGS, ttt=dataclasses.replace(SETTINGS.ttt, chunk_tokens=25))


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
    back = decode(predictor(len(tokens)), payload, len(tokens))
    assert back.dtype == np.uint16 and BYTES.decode([BYTES.bos, *back]) == text.encode()


def test_coded_bits_are_the_scored_bits(predictor):
    tokens = BYTES.encode("It was the best of times, it was the worst of times. " * 12)[1:]
    scorer, expected, sums, told = predictor(len(tokens)), 0.0, [], []
    for token in tokens.tolist():
        distribution = scorer.distribution()
        expected -= np.log2(distribution[token])
        sums.append(distribution.sum())
        scorer.observe(token)
    payload, worst_sum = encode(predictor(len(tokens)), tokens, told.append)
    assert bits(predictor(len(tokens)), [tokens[:7], tokens[7:]]) == pytest.approx(expected, rel=1e-7)
    assert expected - 1 < 8 * len(payload) <= 1.001 * expected + 64
    assert worst_sum == max(sums[::SAMPLED], key=lambda total: abs(total - 1)) and abs(worst_sum - 1) < 1e-9
    assert told == [1] * len(tokens)


def test_the_same_text_gives_the_same_payload_in_whole_words(predictor):
    tokens = BYTES.encode("again")[1:]
    payload, _ = encode(predictor(5), tokens)
    assert payload == encode(predictor(5), tokens)[0] and len(payload) % 4 == 0


def test_a_block_is_coded_at_once_as_decision_by_decision(predictor):
    tokens, coder = BYTES.encode("one after the other, or all together")[1:], constriction.stream.queue.RangeEncoder()
    single = predictor(len(tokens))
    for token in tokens.tolist():
        follow(single, token, lambda right, goes_right: coder.encode(goes_right, Bernoulli(right, perfect=False)))
    assert encode(predictor(len(tokens)), tokens)[0] == coder.get_compressed().astype("<u4").tobytes()


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
    assert bits(Sure(), [tokens]) == 48  # two such decisions on the way to 9


def test_a_payload_that_nothing_codes_to_ends_early():
    assert len(decode(Uniform(), b"\xff" * 8, 20)) < 20


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
