"""Measurements and the claims made from them, in three groups: the coded text, the real scorer, the files.

A measurement that cannot be taken, because the submission failed or scores are missing, fails its claims; nothing is raised.
"""

import math
from typing import NamedTuple

import numpy as np

from fairway.errors import InputError
from fairway.lm.model import GPT
from fairway.mixture.tree_mixture import word_starts
from fairway.proof import causality, claims, rules
from fairway.proof.causality import Scores
from fairway.proof.claims import Claim
from fairway.proof.coded import Coded, measure
from fairway.proof.config import Certify
from fairway.proof.round_trip import RoundTrip
from fairway.score.config import Settings
from fairway.submission.text import SAMPLED, arithmetic
from fairway.text.byte_count import count_bytes, table_bytes
from fairway.text.tokenizer import Tokenizer

PROVED = "eval_ngram"  # the stage whose scores are those of the submission


class Data(NamedTuple):
    """The validation set, as tokens and as documents, and the rows of each stage's score file."""

    tokenizer: Tokenizer | None  # None: the artifact's cannot be read
    stream: np.ndarray  # uint16, the first is BOS
    documents: list[str]
    rows: dict[str, np.ndarray]

    @property
    def text(self) -> bytes:
        return "\0".join(self.documents).encode()

    def column(self, name: str) -> dict[str, np.ndarray]:
        return {stage: table[name] for stage, table in self.rows.items()}


def measure_coded(round_trip: RoundTrip, submission: bytes, tokens: np.ndarray) -> Coded | str:
    """The measured compressed text of these tokens, or why it cannot be measured."""
    try:
        return round_trip.compress.failure or measure(round_trip.compress.output, submission, tokens, arithmetic())
    except InputError as error:
        return str(error)


def coding_claims(round_trip: RoundTrip, coded: Coded | str, text: bytes, targets: int, data: Data) -> list[Claim]:
    """Claims about the round trip. `text` spells the first `targets` tokens after BOS; `coded` comes from `measure_coded`."""
    positions = round_trip.compress.number("normalised_positions")
    depth = math.ceil(math.log2(data.tokenizer.vocabulary_size))
    return [
        claims.comes_back(text, round_trip),
        claims.sandboxed(round_trip),
        claims.coded_bits(coded, targets, data.rows[PROVED]["nats"][:targets], depth, targets == len(data.stream) - 1),
        claims.normalised(
            round_trip.compress.number("worst_sum"),
            0 if math.isnan(positions) else int(positions),
            math.ceil(targets / SAMPLED),
        ),
    ]


def scoring_claims(model: GPT, settings: Settings, data: Data, config: Certify) -> list[Claim]:
    """Claims from running the real scorer on the first `causality_tokens` tokens. `model`: the submission's network."""
    starts, targets = word_starts(data.tokenizer.pieces), len(data.stream) - 1
    tokens = data.stream[: config.causality_tokens + 1]
    scores = causality.scored_nats(model, settings, starts, tokens, targets)
    changes = causality.earlier_changes(model, settings, starts, tokens, targets, scores, config.causality_checks)
    return [claims.causal(changes, len(tokens) - 1), reproduced(data, scores)]


def rescored(model: GPT, settings: Settings, data: Data) -> Claim:
    """The claim from running the real scorer on all of the text, where what was coded does not decide."""
    starts, targets = word_starts(data.tokenizer.pieces), len(data.stream) - 1
    return reproduced(data, causality.scored_nats(model, settings, starts, data.stream, targets))


def reproduced(data: Data, scores: Scores) -> Claim:
    return claims.reproduced({name: data.rows[name]["nats"] for name in scores}, scores)


def file_claims(data: Data, val_documents: int) -> list[Claim]:
    """Claims from the validation set and the score files."""
    table, pieces = table_bytes(data.tokenizer), data.tokenizer.pieces
    lengths = np.array([len(piece) * (token != data.tokenizer.bos) for token, piece in enumerate(pieces)])
    counted = {name: int(column.sum(dtype=np.int64)) for name, column in data.column("bytes").items()}
    return [
        claims.probabilities(data.column("nats")),
        claims.scored_once(data.stream, data.column("token")),
        rules.complete(data.tokenizer.decode(data.stream), data.documents, val_documents),
        rules.bytes_of_tokens(data.stream, data.column("bytes"), pieces, lengths),
        rules.bytes_of_text(data.documents, counted, count_bytes(data.stream, table)[0]),
    ]
