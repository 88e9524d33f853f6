"""The predictor a decoder runs, held to the batched scorers; its distributions; and that nothing comes from the future."""

import dataclasses
import math

import numpy as np
import pytest

from fairway.score import ttt
from fairway.score.config import Eval, Ngram, Settings, Ttt
from fairway.score.mixture import NgramMixture
from fairway.score.predictor import Predictor
from fairway.score.streaming import score_stream

TTT = Ttt("sgd", chunk_tokens=40, epochs=2, sequences_per_step=2, lr=0.05, momentum=0.9, gradient_clip=1.0)
NGRAM = Ngram("linear", max_order=3, discount=0.75, learning_rate=0.05, entropy_bins=4, neural_weight=0.7)
STREAMING = Eval("streaming", context=16, stride=8, block=8, allow_long_context=False)
ALL_ON = Settings(STREAMING, TTT, NGRAM)
TOKENS = np.concatenate(([1], np.random.default_rng(0).integers(0, 12, 110))).astype(np.uint16)


def off(section):
    return dataclasses.replace(section, **{dataclasses.fields(section)[0].name: "none"})


def step_by_step(predictor: Predictor, tokens: np.ndarray) -> np.ndarray:
    nats = []
    for token in tokens.tolist():
        nats.append(-math.log(predictor.distribution()[token]))
        predictor.observe(token)
    return np.array(nats)


def batched(model, settings: Settings, tokens: np.ndarray) -> np.ndarray:
    """What the evaluation stages do."""
    learning = {}
    if settings.ttt.optimizer != "none":
        learning = {"chunk": settings.ttt.chunk_tokens, "learn": ttt.TestTimeTraining(model, settings.ttt).learn}
    scores = score_stream(model, tokens, settings.eval.context, settings.eval.block, **learning)
    if settings.ngram.mixture == "none":
        return scores.nats
    mixture = NgramMixture(settings.ngram, model.architecture.vocabulary_size)
    return mixture.score(tokens[1:], scores.nats, scores.entropy)[0]


@pytest.mark.parametrize("context", [8, 16])
@pytest.mark.parametrize("training", [TTT, off(TTT), dataclasses.replace(TTT, chunk_tokens=11)], ids=["ttt", "frozen", "short"])
@pytest.mark.parametrize("ngram", [NGRAM, off(NGRAM)], ids=["ngram", "neural"])
def test_step_by_step_equals_the_batched_scorers(tiny, shaken, context, training, ngram):
    settings = Settings(dataclasses.replace(STREAMING, context=context), training, ngram)
    ours = step_by_step(Predictor(shaken(tiny), settings), TOKENS[1:])
    np.testing.assert_allclose(ours, batched(shaken(tiny), settings, TOKENS), atol=1e-4)


def test_each_setting_changes_the_scores(tiny, shaken):
    """Or the agreement above would say nothing."""
    variants = [ALL_ON, Settings(STREAMING, off(TTT), NGRAM), Settings(STREAMING, TTT, off(NGRAM))]
    variants.append(Settings(dataclasses.replace(STREAMING, context=8), TTT, NGRAM))
    nats = [step_by_step(Predictor(shaken(tiny), settings), TOKENS[1:]) for settings in variants]
    for i in range(len(nats)):
        for j in range(i):
            assert np.abs(nats[i] - nats[j]).max() > 1e-2


def test_probabilities_sum_to_one_everywhere(tiny, shaken):
    predictor = Predictor(shaken(tiny), ALL_ON)
    for token in TOKENS[1:].tolist():
        distribution = predictor.distribution()
        assert distribution.shape == (64,) and distribution.dtype == np.float64
        assert abs(distribution.sum() - 1) < 1e-6 and distribution.min() > 0
        predictor.observe(token)


def test_asking_twice_changes_nothing(tiny, shaken):
    curious, plain = Predictor(shaken(tiny), ALL_ON), Predictor(shaken(tiny), ALL_ON)
    for token in TOKENS[1:60].tolist():
        first = curious.distribution()
        assert (curious.distribution() == first).all() and (plain.distribution() == first).all()
        curious.observe(token)
        plain.observe(token)


@pytest.mark.parametrize("flipped", [1, 39, 40, 41, 60, 80, 81])
def test_a_token_changes_no_distribution_before_it_is_observed(tiny, shaken, flipped):
    other = TOKENS.copy()
    other[flipped] = 30
    one, two = Predictor(shaken(tiny), ALL_ON), Predictor(shaken(tiny), ALL_ON)
    for position in range(1, len(TOKENS)):
        ours, theirs = one.distribution(), two.distribution()
        if position <= flipped:
            assert (ours == theirs).all()
        elif position in (flipped + 1, 100):
            assert np.abs(ours - theirs).max() > 1e-6
        one.observe(int(TOKENS[position]))
        two.observe(int(other[position]))


@pytest.mark.parametrize(
    ("targets", "updates"), [(39, []), (40, []), (41, [(0, 40)]), (80, [(0, 40)]), (81, [(0, 40), (40, 80)])]
)
def test_a_chunk_is_learned_when_a_token_after_it_is_wanted(tiny, shaken, monkeypatch, targets, updates):
    learned = []
    monkeypatch.setattr(ttt.TestTimeTraining, "learn", lambda self, scored: learned.append(scored.tolist()))
    step_by_step(Predictor(shaken(tiny), ALL_ON), TOKENS[1 : targets + 1])
    assert learned == [TOKENS[a : b + 1].tolist() for a, b in updates]
