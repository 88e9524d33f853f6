"""Run the real scorer on the beginning of the text: its scores there, and whether a later token changes any of them.

`claims.reproduced` compares these scores with the reported ones. Then one token is changed, or the text is cut off, and no
earlier score may change. The scorer is told the length and the schedule of the whole text, as a decoder is.
"""

import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fairway.lm.model import GPT
from fairway.mixture.protocol import mixture_of
from fairway.score.config import Settings
from fairway.score.features import record_stream, tree_of

Scores = dict[str, np.ndarray]  # nats of tokens[1:], float32, by the stage that reports such scores
FLIP, TRUNCATION = "another token", "the end of the text"


class Change(NamedTuple):
    """The largest change of an earlier score after one edit of the text."""

    position: int
    kind: str  # FLIP or TRUNCATION
    nats: float


def scored_nats(model: GPT, settings: Settings, starts: np.ndarray, tokens: np.ndarray, targets: int) -> Scores:
    """Nats of tokens[1:] as eval_ttt and eval_ngram score them, at the beginning of a text with `targets` targets.

    The model is copied, not changed.
    """
    mixture = settings.ngram.mixture
    features = record_stream(copy.deepcopy(model), tokens, settings.eval, settings.ttt, settings.cache, mixture, targets)
    mixed = mixture_of(settings.ngram, tree_of(model), starts, model.architecture.bos).score(features)[0]
    return {"eval_ttt": features["nats"], "eval_ngram": mixed}


def earlier_changes(
    model: GPT, settings: Settings, starts: np.ndarray, tokens: np.ndarray, targets: int, reference: Scores, checks: int
) -> list[Change]:
    """How later tokens change earlier scores: two edits at each of `checks` positions.

    The text is divided into `checks` equal parts, with one random position in each; the seed is the number of tokens.
    `reference`: the scores of the unedited `tokens`. A FLIP replaces the token at the position, and no score before it may
    change. A TRUNCATION ends the text with that token, and its own score may not change either.
    """
    random, changes = np.random.default_rng(len(tokens)), []
    borders = np.linspace(1, len(tokens) - 1, checks + 1).astype(int)
    for first, end in pairwise(borders.tolist()):
        position = int(random.integers(first, max(end, first + 1)))
        other = tokens.copy()
        other[position] = (int(other[position]) + 1) % model.architecture.vocabulary_size
        for kind, text, before in ((FLIP, other, position - 1), (TRUNCATION, tokens[: position + 1], position)):
            scores = scored_nats(model, settings, starts, text, targets)
            moved = [np.abs(scores[name][:before] - reference[name][:before]).max(initial=0) for name in reference]
            changes.append(Change(position, kind, float(np.max(moved))))  # NaN stays NaN
    return changes
