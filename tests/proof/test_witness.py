"""Val against the witness: what documents cost by themselves, and a permutation test that alarms as often as it says."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.codec import container
from fairway.codec.network import model_from
from fairway.proof.claims import SCORE_FIRST
from fairway.proof.trigrams import Trigrams
from fairway.proof.witness import LEVEL, Costs, compare, comparison_of, document_costs, drawn, not_too_easy, permutation_p
from fairway.score.config import Eval
from fairway.score.streaming import score_stream
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer

TOKENIZER = Tokenizer.from_bytes(BYTE_MODEL)
SCORING = Eval(context=16, block=8)
TRAIN = TOKENIZER.encode("We the People, in order to form a more perfect union of the States" * 5)
TEXTS = ["of the people — by the people\0 for the people", "a", "We the People of the United States" * 3]


@pytest.fixture(scope="module")
def weights(tiny, shaken) -> bytes:
    """A `model.fwy` of bytes as tokens."""
    model = shaken(dataclasses.replace(tiny, vocabulary_size=TOKENIZER.vocabulary_size, bos=TOKENIZER.bos))
    state = {name: values.half().numpy() for name, values in model.state_dict().items()}
    return container.write(dataclasses.asdict(model.architecture), {}, state, "lzma")


def costs(bpb: np.ndarray, size: np.ndarray, hardness: np.ndarray | float = 1.0) -> Costs:
    """Documents of so many bytes that cost so many bits per byte; a trigram model finds them as hard as `hardness` says."""
    return Costs(bpb * size, 1.5 * hardness * size, size.astype(np.float64))


def test_a_document_costs_what_the_frozen_network_gives_it_alone(weights):
    model, trigrams = model_from(weights), Trigrams(TRAIN, TOKENIZER.vocabulary_size)
    found = document_costs(model, trigrams, SCORING, TOKENIZER, TEXTS)
    for text, bits, by_trigrams, size in zip(TEXTS, *found, strict=True):
        tokens = np.concatenate([[TOKENIZER.bos], TOKENIZER.encode(text)[1:]])
        nats = score_stream(model, tokens, SCORING)["nats"]
        assert bits == pytest.approx(nats.sum(dtype=np.float64) / math.log(2)) and size == len(text.encode())
        assert by_trigrams == pytest.approx(trigrams.nats(tokens).sum() / math.log(2))
    turned = document_costs(model, trigrams, SCORING, TOKENIZER, TEXTS[::-1])
    np.testing.assert_array_equal(turned.bits[::-1], found.bits)


def test_the_comparison_is_that_of_the_artifact_and_repeats(weights):
    model, texts = model_from(weights), (TEXTS, ["another text", "and one more"])
    first, again = (compare(model, b"a submission", SCORING, TOKENIZER, texts, TRAIN) for _ in range(2))
    assert (first.p, first.p_trigram) == (again.p, again.p_trigram) and first.least == pytest.approx(1 / 10)
    np.testing.assert_array_equal(first.val.bits, again.val.bits)
    assert compare(model, b"a submission", SCORING, TOKENIZER, (TEXTS, []), TRAIN) is None


@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=20), st.integers(0, 2**64 - 1), st.integers(1, 400))
def test_documents_are_drawn_by_lot_up_to_a_limit(texts, seed, limit):
    taken = drawn(texts, seed, limit)
    assert taken == drawn(texts, seed, limit) and len(taken) >= 1
    assert len(taken) == 1 or sum(len(text.encode()) for text in taken) <= limit
    assert sorted(drawn(texts, seed, 10**6)) == sorted(texts)


def test_honest_documents_alarm_as_often_as_the_level_says():
    """Sizes and costs of one distribution on both sides; 5 % of 400 is 20, with a deviation of 4.4."""
    random, alarms = np.random.default_rng(0), np.zeros(2, int)
    for trial in range(400):
        size, hardness = random.integers(2_000, 60_000, 17), random.normal(1, 0.1, 17)
        documents = costs(1.2 * hardness * random.normal(1, 0.01, 17), size, hardness)
        found = comparison_of(*sides(documents, 10), trial)
        alarms += np.array([found.p, found.p_trigram]) < 0.05
    assert ((alarms >= 7) & (alarms <= 33)).all()


def sides(documents: Costs, count: int) -> tuple[Costs, Costs]:
    """The first `count` documents as val, and the others."""
    return Costs(*(column[:count] for column in documents)), Costs(*(column[count:] for column in documents))


@pytest.mark.parametrize(("factor", "by_bytes", "by_trigrams"), [(0.5, True, True), (0.95, False, True), (1.3, False, False)])
def test_val_that_was_learned_is_refused_and_val_that_is_hard_is_not(factor, by_bytes, by_trigrams):
    """A leak of 5 % is within the differences between documents, and seen beside a trigram model that has the same ones."""
    random = np.random.default_rng(1)
    size, hardness = random.integers(20_000, 60_000, 20), random.normal(1, 0.1, 20)
    known = np.where(np.arange(20) < 10, factor, 1.0)
    val, witness = sides(costs(1.2 * hardness * known * random.normal(1, 0.01, 20), size, hardness), 10)
    found = comparison_of(val, witness, 0)
    assert (found.p < LEVEL, found.p_trigram < LEVEL) == (by_bytes, by_trigrams)
    claim = not_too_easy(found)
    assert claim.passed is not (by_bytes or by_trigrams) and claim.condition == SCORE_FIRST
    assert (
        f"{val.bpb / witness.bpb - 1:+.1%}, p = " in claim.result and claim.amount == "10 documents of val, 10 of the witness"
    )


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_equal_documents_are_no_evidence(first, second, seed):
    assert permutation_p(np.ones(first + second), np.full(first + second, 9.0), first, seed) == 1.0


def test_what_was_not_tested_is_said():
    assert "not tested" in not_too_easy(None).result and not_too_easy(None).passed
    few = costs(np.ones(3), np.ones(3))
    claim = not_too_easy(comparison_of(few, few, 0))
    assert claim.passed and "permit no p below 0.05, so nothing could be refused" in claim.result and LEVEL < 0.05
