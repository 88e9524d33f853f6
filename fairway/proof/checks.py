"""From evidence to claims, in three groups: what the coded text shows, what the real scorer shows, what the files show.

What cannot be had, because the submission failed or scores are missing, makes its claims fail; it is no error.
"""

import math
from typing import NamedTuple

import numpy as np

from fairway.codec.network import model_from
from fairway.errors import InputError
from fairway.mixture.tree_mixture import word_starts
from fairway.proof import causality, claims, overlap, rules
from fairway.proof.claims import Claim
from fairway.proof.coded import Coded, measure
from fairway.proof.config import Certify
from fairway.proof.round_trip import RoundTrip
from fairway.score.config import Settings
from fairway.submission.text import SAMPLED, arithmetic
from fairway.text.byte_count import count_bytes, table_bytes
from fairway.text.shards import Shards
from fairway.text.tokenizer import Tokenizer

PROVED = "eval_ngram"  # the stage whose scores are those of the submission


class Data(NamedTuple):
    """The validation set, as tokens and as documents, and the rows of every score file of it by stage."""

    tokenizer: Tokenizer
    stream: np.ndarray  # uint16, the first is BOS
    documents: list[str]
    rows: dict[str, np.ndarray]

    @property
    def text(self) -> bytes:
        return "\0".join(self.documents).encode()

    def column(self, name: str) -> dict[str, np.ndarray]:
        return {stage: table[name] for stage, table in self.rows.items()}


def measured(trial: RoundTrip, submission: bytes, tokens: np.ndarray) -> Coded | str:
    """The compressed text of these tokens, or why there is none."""
    try:
        return trial.compress.failure or measure(trial.compress.output, submission, tokens, arithmetic())
    except InputError as error:
        return str(error)


def shown_by_coding(trial: RoundTrip, coded: Coded | str, text: bytes, targets: int, data: Data) -> list[Claim]:
    """`text` spells the first `targets` tokens after BOS, `coded` is what was `measured` of them."""
    positions = trial.compress.number("normalised_positions")
    return [
        claims.round_trip(text, trial),
        claims.fenced(trial),
        claims.coded_bits(coded, targets, data.rows[PROVED]["nats"][:targets]),
        claims.normalised(
            trial.compress.number("worst_sum"),
            0 if math.isnan(positions) else int(positions),
            math.ceil(targets / SAMPLED),
        ),
    ]


def shown_by_scoring(weights: bytes, settings: Settings, data: Data, config: Certify) -> list[Claim]:
    """`weights`: model.fwy of the submission. The scorer is shown the beginning of the stream only, and told its length."""
    model, starts = model_from(weights), word_starts(data.tokenizer.pieces)
    tokens, targets = data.stream[: config.causality_tokens + 1], len(data.stream) - 1
    scores = causality.scored_nats(model, settings, starts, tokens, targets)
    changes = causality.earlier_changes(model, settings, starts, tokens, targets, scores, config.causality_checks)
    return [
        claims.causal(changes, len(tokens) - 1),
        claims.reproduced({name: data.rows[name]["nats"] for name in scores}, scores),
    ]


def shown_by_files(data: Data, splits: dict[str, np.ndarray | Shards], ledgers: list[dict], val_documents: int) -> list[Claim]:
    """`splits`: the tokens of train, holdout and val; `ledgers`: of the stages that learned."""
    table, pieces = table_bytes(data.tokenizer), data.tokenizer.pieces
    lengths = np.array([len(piece) * (token != data.tokenizer.bos) for token, piece in enumerate(pieces)])
    found = {name: overlap.digests(tokens, data.tokenizer.bos) for name, tokens in splits.items()}
    counted = {name: int(column.sum(dtype=np.int64)) for name, column in data.column("bytes").items()}
    return [
        claims.probabilities(data.column("nats")),
        claims.unexposed(ledgers),
        claims.scored_once(data.stream, data.column("token")),
        rules.complete(data.tokenizer.decode(data.stream), data.documents, val_documents),
        rules.bytes_of_tokens(data.stream, data.column("bytes"), pieces, lengths),
        rules.bytes_of_text(data.documents, counted, count_bytes(data.stream, table)[0]),
        rules.disjoint(overlap.repeats(found), {name: len(digests) for name, digests in found.items()}),
    ]
