"""The predictor a decoder runs, held to the batched scorers; its distributions; and that nothing comes from the future."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from fairway.mixture.protocol import mixture_of
from fairway.mixture.tree import middle
from fairway.score import ttt
from fairway.score.config import Settings
from fairway.score.features import record_stream, tree_of
from fairway.score.predictor import Predictor
from tests.plain_settings import SETTINGS

V = 64
TOKENS = np.concatenate(([1], np.random.default_rng(0).integers(0, 12, 110))).astype(np.uint16)
TOKENS[30:60] = TOKENS[:30]  # a repeat, and with it a second document: BOS is 1
STARTS = np.arange(V) % 3 == 0
OFF = {"ttt": {"optimizer": "none"}, "cache": {"tokens": 0}, "ngram": {"mixture": "none"}}
NEURAL = {"cache": {"tokens": 0}, "ngram": {"mixture": "none"}}  # network and test-time training alone
LORA = {"parameters": "lora", "chunk_tokens": 12, "reset": "document", "optimizer": "adamw", "lr": 0.02}
VARIANTS = {  # changed params by section
    "all on": {},
    "frozen network": OFF,
    "training": NEURAL,
    "tree": {**OFF, "ngram": {}},
    "cache": {"ttt": OFF["ttt"]},
    "small cache": {"ttt": OFF["ttt"], "cache": {"tokens": 5}},
    "short context": {**OFF, "eval": {"context": 8}},
    "segments": {"eval": {"segment_tokens": 13, "batch": 3}},
    "segments alone": {**OFF, "eval": {"segment_tokens": 13, "batch": 3}},
    "documents": {"eval": {"reset": "document"}, "ttt": {"reset": "document", "chunk_tokens": 11}},
    "documents, segments": {"eval": {"reset": "document", "segment_tokens": 20, "batch": 2}},
    "adamw": {**NEURAL, "ttt": {"optimizer": "adamw", "lr": 0.01}},
    "muon": {**NEURAL, "ttt": {"optimizer": "muon", "lr": 0.01}},
    "lora": {**NEURAL, "ttt": LORA},
    "lora, segments": {"ttt": LORA, "eval": {"segment_tokens": 17, "reset": "document"}},
    "cosine": {**NEURAL, "ttt": {"schedule": "cosine"}},
    "adaptive epochs": {**NEURAL, "ttt": {"adaptive_epochs": True}},
    "feed-forward": {**NEURAL, "ttt": {"parameters": "feed_forward", "freeze_blocks": 1, "first_block": 0.5}},
    **{kind: {**OFF, "ngram": {"mixture": kind}} for kind in ("linear", "fixed", "entropy", "tilt")},
    "add one": {**OFF, "ngram": {"mixture": "entropy", "estimator": "add_one"}},
    "late counts": {**OFF, "ngram": {"mixture": "linear", "estimator": "interpolated", "update_tokens": 25}},
}


def settings(name: str) -> Settings:
    changes = VARIANTS[name]
    return Settings(**{part: dataclasses.replace(value, **changes.get(part, {})) for part, value in vars(SETTINGS).items()})


def predictor(model, name: str = "all on", tokens: np.ndarray = TOKENS) -> Predictor:
    return Predictor(model, settings(name), STARTS, len(tokens) - 1)


def step_by_step(predicting: Predictor, tokens: np.ndarray) -> np.ndarray:
    nats = []
    for token in tokens.tolist():
        nats.append(-math.log(predicting.distribution()[token]))
        predicting.observe(token)
    return np.array(nats)


def batched(model, name: str, tokens: np.ndarray = TOKENS) -> np.ndarray:
    """What the evaluation stages do."""
    parts, tree = settings(name), tree_of(model)
    features = record_stream(model, tokens, parts.eval, parts.ttt, parts.cache, parts.ngram.mixture)
    return mixture_of(parts.ngram, tree, STARTS, model.architecture.bos).score(features)[0]


@pytest.fixture(scope="module")
def scores(tiny, shaken) -> Callable[[str], np.ndarray]:
    """What the evaluation stages say of the text, by variant; each is computed once."""
    return functools.cache(lambda name: batched(shaken(tiny), name))


@pytest.mark.parametrize("name", VARIANTS)
def test_step_by_step_equals_the_batched_scorers(tiny, shaken, scores, name):
    ours = step_by_step(predictor(shaken(tiny), name), TOKENS[1:])
    np.testing.assert_allclose(ours, scores(name), atol=1e-4)


def test_each_variant_changes_the_scores(scores):
    """Or the agreement above would say nothing."""
    nats = {name: scores(name) for name in VARIANTS}
    assert not [(a, b) for a in nats for b in nats if a < b and np.abs(nats[a] - nats[b]).max() < 1e-3]


@pytest.mark.parametrize("name", ["all on", "linear", "tilt", "late counts", "frozen network"])
def test_probabilities_sum_to_one_everywhere(tiny, shaken, name):
    predicting = predictor(shaken(tiny), name)
    for token in TOKENS[1:].tolist():
        distribution = predicting.distribution()
        assert distribution.shape == (V,) and distribution.dtype == np.float64
        assert abs(distribution.sum() - 1) < 1e-6 and distribution.min() > 0
        predicting.observe(token)


@pytest.mark.parametrize("name", ["all on", "linear", "frozen network"])
def test_a_walk_down_the_tree_has_the_probability_of_its_leaf(tiny, shaken, name):
    predicting = predictor(shaken(tiny), name)
    for token in TOKENS[1:50].tolist():
        lo, hi, level, probability, rank = 0, V, 0, 1.0, predicting.ranks[token]
        while hi - lo > 1:
            right, half = predicting.right(lo, hi, level), middle(lo, hi)
            probability *= right if rank >= half else 1 - right
            lo, hi, level = (half, hi, level + 1) if rank >= half else (lo, half, level + 1)
        assert predicting.leaves[lo] == token
        assert probability == pytest.approx(predicting.distribution()[token], rel=1e-9)
        predicting.observe(token)


def test_asking_twice_or_not_at_all_changes_nothing(tiny, shaken):
    curious, plain, silent = (predictor(shaken(tiny)) for _ in range(3))
    for token in TOKENS[1:60].tolist():
        first = curious.distribution()
        curious.right(0, V, 0)
        assert (curious.distribution() == first).all() and (plain.distribution() == first).all()
        for one in (curious, plain, silent):
            one.observe(token)
    assert (silent.distribution() == plain.distribution()).all()


@pytest.mark.parametrize("flipped", [1, 39, 40, 41, 60, 80, 81])
def test_a_token_changes_no_distribution_before_it_is_observed(tiny, shaken, flipped):
    other = TOKENS.copy()
    other[flipped] = 30
    one, two = predictor(shaken(tiny)), predictor(shaken(tiny))
    for position in range(1, len(TOKENS)):
        ours, theirs = one.distribution(), two.distribution()
        if position <= flipped:
            assert (ours == theirs).all()
        elif position == flipped + 1:
            assert np.abs(ours - theirs).max() > 1e-6
        one.observe(int(TOKENS[position]))
        two.observe(int(other[position]))


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("flipped", [29, 75])
def test_a_token_changes_no_earlier_score(tiny, shaken, scores, name, flipped):
    other = TOKENS.copy()
    other[flipped] = 30
    ours, theirs = scores(name), batched(shaken(tiny), name, other)
    np.testing.assert_allclose(ours[: flipped - 1], theirs[: flipped - 1], atol=1e-5)
    assert np.abs(ours[flipped - 1] - theirs[flipped - 1]) > 1e-6


@pytest.mark.parametrize(
    ("targets", "updates"), [(39, []), (40, []), (41, [(0, 40)]), (80, [(0, 40)]), (81, [(0, 40), (40, 80)])]
)
def test_a_chunk_is_learned_when_a_token_after_it_is_wanted(tiny, shaken, monkeypatch, targets, updates):
    learned = []
    monkeypatch.setattr(ttt.TestTimeTraining, "learn", lambda self, scored, nats: learned.append((scored.tolist(), len(nats))))
    step_by_step(predictor(shaken(tiny)), TOKENS[1 : targets + 1])
    assert learned == [(TOKENS[a : b + 1].tolist(), b - a) for a, b in updates]
