"""Scoring each token once: the text runs through the network in blocks, with a rolling key/value cache (DESIGN 3.2).

Input i is tokens[i] and target i the token after it, which is looked up in a distribution made of inputs 0 … i only.
What decides the scores: the context; segments (at each multiple of `segment_tokens` the cache is built anew from the
context before); documents (with `reset` nothing is seen over a start); chunks of test-time training. What decides the
speed only: the block, the batch of segments side by side, the ranks that share them.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.lm.model import GPT, StreamState
from fairway.score.config import Eval, Ttt

# Final hidden states (T, D) and the targets they predict → by name, what to keep of each: tensors of T rows. T may be 0.
Measure = Callable[[Tensor, slice], dict[str, Tensor]]


class Share(NamedTuple):
    """This process among those that share the work (a train.ranks.Ranks is one too)."""

    rank: int = 0
    size: int = 1
    average_: Callable[[list[Tensor]], None] = lambda tensors: None  # replaces tensors by their mean over the ranks


ALONE = Share()


class Training(Protocol):
    """What a scorer needs to know of test-time training (ttt.py)."""

    chunk: int  # targets from update to update
    reset_documents: bool  # count them from the start of each document

    def learn(self, scored: np.ndarray, nats: np.ndarray) -> None:
        """`scored`: a chunk's targets with the token before them; their nats."""

    def restart(self) -> None:
        """A document starts: forget what was learned."""


@torch.no_grad()
def log_probabilities(model: GPT, hidden: Tensor) -> Tensor:
    """(…, V) of final hidden states (…, D)."""
    return F.log_softmax(model.head(hidden), dim=-1)


def entropy(log_probabilities_TV: Tensor) -> Tensor:
    return -torch.linalg.vecdot(log_probabilities_TV.exp(), log_probabilities_TV)


def nats_of(log_probabilities_TV: Tensor, token_T: Tensor) -> Tensor:
    return -log_probabilities_TV.gather(1, token_T[:, None])[:, 0]


def target_scores(model: GPT, tokens: np.ndarray) -> Measure:
    """Of each target of a text its nats, and the entropy of the distribution it was drawn from."""

    def measure(hidden_TD: Tensor, targets: slice) -> dict[str, Tensor]:
        log_probabilities_TV = log_probabilities(model, hidden_TD)
        target_T = rows(tokens, [(targets.start + 1, targets.stop + 1)], hidden_TD.device)[0]
        return {"nats": nats_of(log_probabilities_TV, target_T), "entropy": entropy(log_probabilities_TV)}

    return measure


def rows(tokens: np.ndarray, spans: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Spans (first, end) of a text, all of one length T: int64 (B, T)."""
    return torch.from_numpy(np.stack([tokens[first:end] for first, end in spans]).astype(np.int64)).to(device)


def no_scores(model: GPT, measure: Measure, targets: int) -> dict[str, Tensor]:
    """Zeros, float32, in the shapes that the measure returns for so many targets."""
    device = next(model.parameters()).device
    measured = measure(torch.zeros(0, model.architecture.width, device=device), slice(0, 0))
    return {name: torch.zeros(targets, *values.shape[1:], device=device) for name, values in measured.items()}


def chunks(tokens: np.ndarray, chunk: int, bos: int | None) -> list[tuple[int, int]]:
    """Targets (first, end) that are scored with the same weights: `chunk` of them, or fewer at the end.

    With `bos` they are counted from each input that is one, and a document's end cuts the last one short. Whether a chunk
    begins at target i depends on tokens[: i + 1] only.
    """
    targets = len(tokens) - 1
    documents = [0] if bos is None else np.union1d(0, np.flatnonzero(tokens[:-1] == bos)).tolist()
    firsts = [first for start, end in pairwise([*documents, targets]) for first in range(start, end, chunk)]
    return list(pairwise([*firsts, targets]))


def learned_chunks(tokens: np.ndarray, settings: Ttt, bos: int) -> int:
    """How many chunks of a text are learned: not its last, nor one that a new document makes pointless."""
    reset = settings.reset == "document"
    ends = [end for _, end in chunks(tokens, settings.chunk_tokens, bos if reset else None)[:-1]]
    return sum(not reset or tokens[end] != bos for end in ends) if settings.optimizer != "none" else 0


class Piece(NamedTuple):
    """Targets first … end − 1 of one segment. `read` inputs before them come first, unscored, to fill a new cache."""

    first: int
    end: int
    read: int | None  # None: goes on with the cache from before a chunk's end


def pieces(first: int, end: int, settings: Eval) -> Iterator[Piece]:
    """What each segment has of the targets of a chunk. Only the first piece may go on, only the last be cut off."""
    length = settings.segment_tokens or end
    for start in range(first // length * length, end, length):
        read = min(settings.context, start) if start >= first else None
        yield Piece(max(start, first), min(start + length, end), read)


def side_by_side(apart: Iterable[Piece], batch: int) -> Iterator[list[Piece]]:
    """Neighbours of one shape, at most `batch` together. A piece that is cut off is shorter, thus the last and alone."""
    for _, alike in groupby(apart, key=lambda piece: (piece.read, piece.end - piece.first)):
        together = list(alike)
        yield from (together[start : start + batch] for start in range(0, len(together), batch))


def score_stream(
    model: GPT,
    tokens: np.ndarray,
    settings: Eval,
    training: Training | None = None,
    measure: Measure | None = None,
    advance: Callable[[int], None] = lambda count: None,
    ranks: Share = ALONE,
) -> dict[str, np.ndarray]:
    """What `measure` keeps of each target of a text (`target_scores` by default), float32, one array a name.

    After each chunk of targets but the last, `training` learns from it, all of it scored; then the measure must have
    "nats". Segments go round the ranks, which then share what they found. `advance` is told how many targets this rank has
    scored, for progress.
    """
    bos, segment = model.architecture.bos, settings.segment_tokens or len(tokens)
    measure = measure or target_scores(model, tokens)
    scores = no_scores(model, measure, len(tokens) - 1)
    apart = chunks(tokens, training.chunk, bos if training.reset_documents else None) if training else [(0, len(tokens) - 1)]
    state = None  # of the latest pieces; outlives a chunk
    for index, (first, end) in enumerate(apart):
        if index:
            update(training, tokens, scores["nats"], apart[index - 1], bos)
        mine = (piece for piece in pieces(first, end, settings) if piece.first // segment % ranks.size == ranks.rank)
        for together in side_by_side(mine, settings.batch):
            state = state if together[0].read is None else opened(model, tokens, settings, together)
            for targets, hidden_TD in fed(model, state, tokens, together, settings.block):
                for name, values in measure(hidden_TD, targets).items():
                    scores[name][targets] = values
                advance(targets.stop - targets.start)
        if ranks.size > 1:
            ranks.average_([values[first:end] for values in scores.values()])
            torch._foreach_mul_([values[first:end] for values in scores.values()], ranks.size)
    return {name: values.cpu().numpy() for name, values in scores.items()}


def update(training: Training, tokens: np.ndarray, nats: Tensor, scored: tuple[int, int], bos: int) -> None:
    """Between two chunks: learn from the one that is scored, unless the next begins a document and all is forgotten."""
    first, end = scored
    if training.reset_documents and tokens[end] == bos:
        training.restart()
    else:
        training.learn(tokens[first : end + 1], nats[first:end].cpu().numpy())


@torch.no_grad()
def opened(model: GPT, tokens: np.ndarray, settings: Eval, together: list[Piece]) -> StreamState:
    """The start of segments side by side: new caches, filled from the inputs before them."""
    state, read = StreamState.start(settings.context, settings.reset == "document"), together[0].read
    for offset in range(read, 0, -settings.block):
        spans = [(piece.first - offset, piece.first - max(0, offset - settings.block)) for piece in together]
        model.hidden(rows(tokens, spans, next(model.parameters()).device), state)
    return state


def fed(
    model: GPT, state: StreamState, tokens: np.ndarray, together: list[Piece], block: int
) -> Iterator[tuple[slice, Tensor]]:
    """Targets of each piece, a block at a time, and the hidden states (T, D) that predict them, in the order of the text."""
    device, waiting = next(model.parameters()).device, []
    for offset in range(0, together[0].end - together[0].first, block):
        spans = [(piece.first + offset, min(piece.first + offset + block, piece.end)) for piece in together]
        with torch.no_grad():
            hidden_BTD = model.hidden(rows(tokens, spans, device), state)
        yield slice(*spans[0]), hidden_BTD[0]
        if len(together) > 1:
            waiting.append((spans, hidden_BTD))
    for row in range(1, len(together)):
        yield from ((slice(*spans[row]), hidden_BTD[row]) for spans, hidden_BTD in waiting)
