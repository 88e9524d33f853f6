"""The causality check on the real scorer with everything on, and on scorers that peek: there it must see a large change."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fairway.mixture.protocol import mixture_of
from fairway.proof import causality
from fairway.score import streaming
from fairway.score.config import Settings
from fairway.score.features import record_stream
from tests.plain_settings import SETTINGS as PLAIN

TOKENS = np.random.default_rng(3).integers(0, 64, 40, dtype=np.uint16)[np.random.default_rng(4).integers(0, 40, 241)]
TOKENS[0] = 1  # BOS
TARGETS = 900  # of the whole text, of which TOKENS are the beginning
STARTS = np.arange(64) % 3 == 0
TTT = dataclasses.replace(PLAIN.ttt, optimizer="adamw", lr=0.01, chunk_tokens=50)
SETTINGS = dataclasses.replace(PLAIN, ttt=TTT)
NEURAL = dataclasses.replace(SETTINGS, ngram=dataclasses.replace(SETTINGS.ngram, mixture="none"))
FROZEN = dataclasses.replace(SETTINGS, ttt=dataclasses.replace(SETTINGS.ttt, optimizer="none"))


def worst(model, settings: Settings, checks: int = 2) -> float:
    return max(change.nats for change in changes(model, settings, checks))


def changes(model, settings: Settings, checks: int) -> list[causality.Change]:
    reference = causality.scored_nats(model, settings, STARTS, TOKENS, TARGETS)
    return causality.earlier_changes(model, settings, STARTS, TOKENS, TARGETS, reference, checks)


@pytest.mark.parametrize("mixture", ["tree", "linear", "tilt"])
def test_the_real_scorer_is_causal_and_leaves_the_model_alone(tiny, shaken, mixture):
    model = shaken(tiny)
    settings = dataclasses.replace(SETTINGS, ngram=dataclasses.replace(SETTINGS.ngram, mixture=mixture))
    before = copy.deepcopy(model.state_dict())
    found = changes(model, settings, 2)
    assert [change.kind for change in found] == [causality.FLIP, causality.TRUNCATION] * 2
    assert [change.position for change in found[::2]] == sorted(change.position for change in found[1::2])
    assert 1 <= found[0].position < 120 <= found[2].position < 240  # one in each half
    assert all(0 <= change.nats <= 1e-5 for change in found)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert changes(model, settings, 2) == found


def test_every_part_of_the_scorer_is_in_the_scores(tiny, shaken):
    """Otherwise the check would pass for want of anything to check."""
    model, parts = shaken(tiny), (SETTINGS, NEURAL, FROZEN)
    scores = [causality.scored_nats(model, part, STARTS, TOKENS, 240) for part in parts]
    everything, neural, frozen = (score["eval_ngram"] for score in scores)
    assert np.array_equal(scores[0]["eval_ttt"], scores[1]["eval_ttt"]) and np.array_equal(neural, scores[1]["eval_ttt"])
    assert everything.shape == (240,) and np.isfinite(everything).all()
    assert np.abs(everything - neural).max() > 0.1
    assert np.abs(everything[:50] - frozen[:50]).max() < 1e-5 < 0.01 < np.abs(everything[50:] - frozen[50:]).max()


def test_a_schedule_over_the_text_is_told_its_length_and_looks_no_further(tiny, shaken):
    assert worst(shaken(tiny), dataclasses.replace(NEURAL, ttt=dataclasses.replace(TTT, schedule="cosine"))) <= 1e-5


def test_learning_from_a_chunk_before_scoring_it_is_seen(tiny, shaken, monkeypatch):
    def early(training, tokens, nats, scored, bos):
        training.learn(tokens[scored[1] : scored[1] + training.chunk + 1], nats[: training.chunk].numpy())

    assert worst(shaken(tiny), NEURAL) <= 1e-5
    monkeypatch.setattr(streaming, "update", early)
    assert worst(shaken(tiny), NEURAL) > 1e-3


@pytest.mark.parametrize("field", ["entropy", "nearest"])
def test_what_the_network_sees_of_the_next_place_is_seen(tiny, shaken, monkeypatch, field):
    """The mixture's weights would be chosen by what the network thinks after the token that is scored."""

    def peeking(*arguments):
        features = record_stream(*arguments)
        features[field] = np.append(features[field][1:], np.float32(0))
        return features

    fast = dataclasses.replace(FROZEN, ngram=dataclasses.replace(FROZEN.ngram, learning_rate=0.5))
    assert worst(shaken(tiny), fast) <= 1e-5
    monkeypatch.setattr(causality, "record_stream", peeking)
    assert worst(shaken(tiny), fast) > 1e-3


@pytest.mark.parametrize("mixture", ["tree", "linear"])
def test_a_mixture_that_has_read_the_text_before_is_seen(tiny, shaken, monkeypatch, mixture):
    def second(*arguments):
        reading = mixture_of(*arguments)
        score = reading.score
        reading.score = lambda features: (score(features), score(features))[1]
        return reading

    settings = dataclasses.replace(FROZEN, ngram=dataclasses.replace(FROZEN.ngram, mixture=mixture))
    monkeypatch.setattr(causality, "mixture_of", second)
    assert worst(shaken(tiny), settings) > 1e-3


@pytest.mark.parametrize("known", ["the next token", "the length of the text"])
def test_a_score_that_knows_a_later_token_is_seen(tiny, shaken, monkeypatch, known):
    def peeking(model, tokens, *arguments):
        features = record_stream(model, tokens, *arguments)
        known_value = np.append(tokens[2:], 0) if known == "the next token" else np.full(len(tokens) - 1, len(tokens))
        features["nats"] += np.float32(0.01) * known_value.astype(np.float32)
        return features

    monkeypatch.setattr(causality, "record_stream", peeking)
    assert worst(shaken(tiny), dataclasses.replace(NEURAL, ttt=FROZEN.ttt)) > 5e-3


def test_a_change_of_a_later_token_and_the_end_of_the_text_are_told_apart(tiny, shaken, monkeypatch):
    def peeking(kind: str):
        def record(model, tokens, *arguments):
            features = record_stream(model, tokens, *arguments)
            whole = len(tokens) == len(TOKENS)
            known_value = int(tokens.sum(dtype=np.int64)) * whole if kind == causality.FLIP else len(tokens)
            features["nats"] += np.float32(0.01 * known_value)
            return features

        return record

    for kind in (causality.FLIP, causality.TRUNCATION):
        monkeypatch.setattr(causality, "record_stream", peeking(kind))
        found = changes(shaken(tiny), dataclasses.replace(NEURAL, ttt=FROZEN.ttt), 2)
        assert all(change.nats > 5e-3 for change in found if change.kind == kind)
    assert all(change.nats < 1e-5 for change in found if change.kind == causality.FLIP)
