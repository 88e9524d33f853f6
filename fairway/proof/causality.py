"""Causality through the real scorer: change a token, cut off what follows, and see whether any earlier score moves."""

import copy

import numpy as np
import torch

from fairway.lm.model import GPT
from fairway.score.config import Settings
from fairway.score.mixture import NgramMixture
from fairway.score.streaming import score_stream
from fairway.score.ttt import TestTimeTraining


def scored_nats(model: GPT, settings: Settings, tokens: np.ndarray) -> np.ndarray:
    """Nats of tokens[1:] as eval_ttt and eval_ngram score them; the model itself is left as it was."""
    learner = copy.deepcopy(model)
    training = TestTimeTraining(learner, settings.ttt)
    chunk = settings.ttt.chunk_tokens if settings.ttt.optimizer != "none" else None
    with torch.no_grad():
        scores = score_stream(learner, tokens, settings.eval.context, settings.eval.block, chunk=chunk, learn=training.learn)
    if settings.ngram.mixture == "none":
        return scores.nats
    mixture = NgramMixture(settings.ngram, model.architecture.vocabulary_size)
    return mixture.score(tokens[1:], scores.nats, scores.entropy)[0]


def earlier_changes(model: GPT, settings: Settings, tokens: np.ndarray, checks: int) -> list[tuple[int, float]]:
    """(position, largest change in nats of a score before it) at random positions, fixed by the number of tokens.

    At each position the token is replaced and the text ends there: neither it nor what followed may have mattered. Its
    own score must not have depended on it either, so the distribution it is drawn from is compared by a second text in
    which it is the same and only what follows is gone.
    """
    random = np.random.default_rng(len(tokens))
    reference = scored_nats(model, settings, tokens)
    changes = []
    for position in sorted(random.integers(len(tokens) // 2, len(tokens) - 1, checks)):
        same = tokens[: position + 1]
        other = same.copy()
        other[-1] = (int(other[-1]) + 1) % model.architecture.vocabulary_size
        before = np.abs(scored_nats(model, settings, other)[:-1] - reference[: position - 1]).max()
        own = np.abs(scored_nats(model, settings, same) - reference[:position]).max()
        changes.append((int(position), float(max(before, own))))
    return changes
