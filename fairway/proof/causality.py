"""The real scorer on the beginning of the text: what it gives there, and whether a later token moves any of it.

Its scores are held against the reported ones (claims.reproduced). Then a token is changed, or the text ends early, and no
score before may move. Length and schedule of the whole text are told to the scorer, as a decoder is told them.
"""

import copy
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fairway.lm.model import GPT
from fairway.mixture.flat import mixture_of
from fairway.score.config import Settings
from fairway.score.features import record_stream, tree_of

Scores = dict[str, np.ndarray]  # nats of tokens[1:], float32, by the stage that reports such scores
FLIP, TRUNCATION = "another token", "the end of the text"


class Change(NamedTuple):
    """The largest change of a score before what was put at a position of the text."""

    position: int
    kind: str
    nats: float


def scored_nats(model: GPT, settings: Settings, starts: np.ndarray, tokens: np.ndarray, targets: int) -> Scores:
    """Nats of tokens[1:] as eval_ttt and eval_ngram score them, at the beginning of a text of so many targets.

    The model itself is left as it was.
    """
    evidence = record_stream(copy.deepcopy(model), tokens, settings.eval, settings.ttt, settings.cache, targets)
    mixed = mixture_of(settings.ngram, tree_of(model), starts, model.architecture.bos).score(evidence)[0]
    return {"eval_ttt": evidence.nats, "eval_ngram": mixed}


def earlier_changes(
    model: GPT, settings: Settings, starts: np.ndarray, tokens: np.ndarray, targets: int, reference: Scores, checks: int
) -> list[Change]:
    """What a later token does to earlier scores, two changes a position. Positions are random, fixed by the number of tokens,
    one in each of as many equal parts of the text as there are checks.

    `reference` are the scores of `tokens` as they are. With another token at a position, no score of those before it may
    move, whatever follows; where the text ends with it, its own score may not move either.
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
            changes.append(Change(position, kind, float(np.max(moved))))  # what is no number stays none
    return changes
