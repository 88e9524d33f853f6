"""Causality through the real scorer: change a token, cut off what follows, and see whether any earlier score moves."""

import copy

import numpy as np

from fairway.lm.model import GPT
from fairway.score.config import Settings
from fairway.score.flat import mixture_of
from fairway.score.recording import record_stream, tree_of


def scored_nats(model: GPT, settings: Settings, starts: np.ndarray, tokens: np.ndarray, targets: int) -> np.ndarray:
    """Nats of tokens[1:] as eval_ttt and eval_ngram score them, at the beginning of a text of so many targets.

    The model itself is left as it was.
    """
    evidence = record_stream(copy.deepcopy(model), tokens, settings.eval, settings.ttt, settings.cache, targets)
    return mixture_of(settings.ngram, tree_of(model), starts, model.architecture.bos).score(evidence)[0]


def earlier_changes(
    model: GPT, settings: Settings, starts: np.ndarray, tokens: np.ndarray, checks: int
) -> list[tuple[int, float]]:
    """(position, largest change in nats of a score before it) at random positions, fixed by the number of tokens.

    At each position the token is replaced and the text ends there: neither it nor what followed may have mattered. Its
    own score must not have depended on it either, so the distribution it is drawn from is compared by a second text in
    which it is the same and only what follows is gone.
    """
    random, targets = np.random.default_rng(len(tokens)), len(tokens) - 1
    reference = scored_nats(model, settings, starts, tokens, targets)
    changes = []
    for position in sorted(random.integers(len(tokens) // 2, len(tokens) - 1, checks)):
        same = tokens[: position + 1]
        other = same.copy()
        other[-1] = (int(other[-1]) + 1) % model.architecture.vocabulary_size
        before = np.abs(scored_nats(model, settings, starts, other, targets)[:-1] - reference[: position - 1]).max()
        own = np.abs(scored_nats(model, settings, starts, same, targets) - reference[:position]).max()
        changes.append((int(position), float(max(before, own))))
    return changes
