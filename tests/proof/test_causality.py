"""The causality check on the real scorer with everything on, and on scorers that peek: there it must see a large change."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from fairway.proof import causality
from fairway.score.config import Eval, Ngram, Settings, Ttt
from fairway.score.files import Scores
from fairway.score.mixture import NgramMixture
from fairway.score.streaming import score_stream

TOKENS = np.random.default_rng(3).integers(0, 64, 40, dtype=np.uint16)[np.random.default_rng(4).integers(0, 40, 241)]
TOKENS[0] = 1  # BOS
SETTINGS = Settings(
    Eval("streaming", context=16, stride=8, block=16, allow_long_context=False),
    Ttt("adamw", chunk_tokens=50, epochs=2, sequences_per_step=2, lr=0.01, momentum=0.9, gradient_clip=1.0),
    Ngram("linear", max_order=4, discount=0.4, learning_rate=0.05, entropy_bins=6, neural_weight=0.7),
)
NEURAL = dataclasses.replace(SETTINGS, ngram=dataclasses.replace(SETTINGS.ngram, mixture="none"))
FROZEN = dataclasses.replace(SETTINGS, ttt=dataclasses.replace(SETTINGS.ttt, optimizer="none"))


def worst(model, settings: Settings, checks: int = 4) -> float:
    return max(change for _, change in causality.earlier_changes(model, settings, TOKENS, checks))


def test_the_real_scorer_is_causal_and_leaves_the_model_alone(tiny, shaken):
    model = shaken(tiny)
    before = copy.deepcopy(model.state_dict())
    changes = causality.earlier_changes(model, SETTINGS, TOKENS, 3)
    assert len(changes) == 3 and changes == sorted(changes)
    assert all(120 <= position < 240 and 0 <= change <= 1e-5 for position, change in changes)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert causality.earlier_changes(model, SETTINGS, TOKENS, 3) == changes


def test_every_part_of_the_scorer_is_in_the_scores(tiny, shaken):
    """Otherwise the check would pass for want of anything to check."""
    model = shaken(tiny)
    everything, neural, frozen = (causality.scored_nats(model, part, TOKENS) for part in (SETTINGS, NEURAL, FROZEN))
    assert everything.shape == (240,) and np.isfinite(everything).all()
    assert np.abs(everything - neural).max() > 0.1
    assert np.abs(everything[:50] - frozen[:50]).max() < 1e-5 < 0.01 < np.abs(everything[50:] - frozen[50:]).max()


def test_learning_from_a_chunk_before_scoring_it_is_seen(tiny, shaken, monkeypatch):
    def peeking(model, tokens, context, block, chunk, learn):
        pieces = []
        for start in range(0, len(tokens) - 1, chunk):
            piece = tokens[start : start + chunk + 1]
            learn(piece)
            pieces.append(score_stream(model, piece, context, block))
        return Scores(*(np.concatenate(columns) for columns in zip(*map(dataclasses.astuple, pieces), strict=True)))

    assert worst(shaken(tiny), NEURAL) <= 1e-5
    monkeypatch.setattr(causality, "score_stream", peeking)
    assert worst(shaken(tiny), NEURAL) > 1e-3


def test_the_entropy_of_the_next_distribution_is_seen(tiny, shaken, monkeypatch):
    """The mixture's weights would be chosen by what the network thinks after the token that is scored."""

    def peeking(*arguments, **keywords):
        scores = score_stream(*arguments, **keywords)
        return Scores(scores.nats, np.append(scores.entropy[1:], np.float32(0)))

    many_classes = dataclasses.replace(FROZEN, ngram=dataclasses.replace(FROZEN.ngram, learning_rate=1.0))
    assert worst(shaken(tiny), many_classes) <= 1e-5
    monkeypatch.setattr(causality, "score_stream", peeking)
    assert worst(shaken(tiny), many_classes) > 1e-3


def test_an_ngram_cache_that_has_read_the_text_before_is_seen(tiny, shaken, monkeypatch):
    class Second(NgramMixture):
        def score(self, *columns):
            super().score(*columns)
            return super().score(*columns)

    monkeypatch.setattr(causality, "NgramMixture", Second)
    assert worst(shaken(tiny), FROZEN) > 1e-3


@pytest.mark.parametrize("known", ["the next token", "the length of the text"])
def test_a_score_that_knows_a_later_token_is_seen(tiny, shaken, monkeypatch, known):
    def peeking(model, tokens, *arguments, **keywords):
        scores = score_stream(model, tokens, *arguments, **keywords)
        hint = np.append(tokens[2:], 0) if known == "the next token" else np.full(len(tokens) - 1, len(tokens))
        return Scores(scores.nats + np.float32(0.01) * hint.astype(np.float32), scores.entropy)

    monkeypatch.setattr(causality, "score_stream", peeking)
    neural = dataclasses.replace(NEURAL, ttt=FROZEN.ttt)
    assert worst(shaken(tiny), neural) > 5e-3
