"""Cheats of the score: the text is whole and its bytes are right, but the probabilities are not what a decoder could have.

Each is a param, or a function of the scorer that does something more, and where the submission cheats in the same way, the same
change there (`submit`).
"""

import copy
import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from fairway.lm import checkpoint
from fairway.lm.model import GPT
from fairway.mixture import match, weights
from fairway.mixture.features import Features
from fairway.score import features, streaming
from fairway.text.tokenizer import Tokenizer
from stages import eval_ttt
from stages.common import ARTIFACTS, write_array
from tests.gallery import submission
from tests.gallery.pipeline import (
    CAUSAL,
    COSTS,
    LATE,
    NGRAM,
    ONE_PASS,
    PACK,
    PROBABILITIES,
    SCORE_FIRST,
    SUMS,
    TTT,
    Cheat,
    cheat,
    replace,
    set_param,
    submit,
)


def twice(function: Callable) -> Callable:
    return lambda *arguments, **options: [function(*arguments, **options) for _ in range(2)][1]


def best_of(rates: tuple[float, ...], choose: Callable[[Features, Features], Features]) -> Callable:
    """What records the stream several times instead of once, and chooses of two runs at a time."""
    record = features.record_stream

    def best(model, tokens, scoring, learning, caching, mixture, *rest, **options):
        chosen = None
        for rate in rates:
            run = record(copy.deepcopy(model), tokens, scoring, dataclasses.replace(learning, lr=rate), caching, mixture)
            chosen = run if chosen is None else choose(run, chosen)
        return chosen

    return best


def hashed_cache() -> None:
    """#885's settings."""
    for key, value in {"mixture": "fixed", "estimator": "hashed_ratio", "max_order": 7, "neural_weight": 0.8}.items():
        set_param(f"ngram.{key}", value)


@cheat("#779, #885, #886", PACK, {SUMS: "a sum is", COSTS: "bits coded"})
def target_in_the_key_of_a_hashed_cache(patch):
    """Counts are looked up in buckets of context and target together; over the vocabulary their ratios sum to anything."""
    hashed_cache()
    submission.few_buckets(patch.setattr)
    submit(patch, "few_buckets")


@cheat("#886", PACK, {COSTS: "bits coded"}, dear=True)
def the_same_with_a_submission_that_praises_its_sums(patch):
    """The submission reports that all its sums are 1. They are not looked up: its text is as long as it is."""
    target_in_the_key_of_a_hashed_cache.inject(patch)
    submit(patch, "praised_sums")


@cheat("#1514, unlike it", PACK, {SUMS: "a sum is", COSTS: "bits coded", PROBABILITIES: "scores -"}, dear=True)
def a_tilt_that_is_not_renormalised(patch):
    """The match token's probability is raised by e^β and nobody else's falls."""

    def tilt_and_learn(betas, rate, neural, estimates, orders, probabilities):
        probabilities[:] = neural * np.where((estimates[:, 1] > 0) & (orders > 0), np.exp(betas[orders]), 1.0)

    patch.setattr(weights, "tilt_and_learn", tilt_and_learn)
    submit(patch, "tilt_without_norm")


@cheat("#846, #869", TTT, {COSTS: "bits coded", ONE_PASS: "eval_ttt: token 0"})
def two_passes(patch):
    """The text is scored while the network learns it, and then scored again; the second pass is reported."""
    patch.setattr(eval_ttt, "record_stream", twice(eval_ttt.record_stream))


@cheat("#846, #869", TTT, {CAUSAL: "nats", COSTS: "bits coded", ONE_PASS: "eval_ttt: token 0"})
def two_passes_inside_the_scorer(patch):
    """The same, where the certificate's own look through the scorer has two passes too."""
    patch.setattr(features, "score_stream", twice(features.score_stream))


@cheat("#568, #677", TTT, {CAUSAL: "the end of the text", ONE_PASS: "eval_ttt: token 64"})
def the_best_learning_rate_is_reported(patch):
    """Test-time training runs several times, and the run with the best total goes into the report."""
    best = best_of((0.1, 0.3, 0.5), lambda *runs: min(runs, key=lambda run: run["nats"].sum()))
    replace(patch, features.record_stream, best)


@cheat("#568, #677", TTT, {CAUSAL: "nats", COSTS: "bits coded"}, dear=True)
def the_best_learning_rate_of_every_window_is_reported(patch):
    """Of several runs each two tokens take the one that turned out best for them."""
    replace(patch, features.record_stream, best_of((0.0, 0.1, 0.3, 1.0, 3.0), best_windows))


def best_windows(found: Features, chosen: Features, window: int = 2) -> Features:
    starts = np.arange(0, len(found), window)
    won = np.add.reduceat(found["nats"], starts) < np.add.reduceat(chosen["nats"], starts)
    return np.where(np.repeat(won, window)[: len(found)], found, chosen)


@cheat("#402, #677", TTT, {CAUSAL: "nats", COSTS: "bits coded", ONE_PASS: "eval_ttt: token 448"})
def learning_before_scoring(patch):
    """A chunk is learned just before it is scored, instead of just after: off by one, or not."""

    def update(training, tokens, nats, scored, bos):
        first, end = scored
        training.learn(tokens[end : 2 * end - first + 1], nats[first:end].cpu().numpy())

    patch.setattr(streaming, "update", update)


@cheat("#1376, #1406", LATE, {SCORE_FIRST: "prequant_ttt learned from"}, dear=True)
def the_validation_text_is_learned_before_quantisation(patch):
    """The network is adapted on the validation text first; its artifact then predicts that text causally, and well."""
    set_param("prequant_ttt.source", "val")


@cheat("#1229, #1240, #1329, #1430", TTT, {CAUSAL: "nats", COSTS: "bits coded", ONE_PASS: "eval_ttt: token"})
def a_shift_fitted_to_the_scored_positions(patch):
    """SLOT: a vector added to the hidden states is optimised on the very targets that are then scored with it."""
    measure = features.Measure.__call__

    def fit_and_measure(self, hidden_TD, targets):
        shift_D = torch.zeros(hidden_TD.shape[1], requires_grad=True)
        optimizer = torch.optim.Adam([shift_D], 0.1)
        target_T = torch.from_numpy(self.tokens[1:][targets].astype(np.int64))
        for _ in range(20 * bool(len(hidden_TD))):
            loss = torch.nn.functional.cross_entropy(self.model.head(hidden_TD + shift_D), target_T)
            (shift_D.grad,) = torch.autograd.grad(loss, [shift_D])
            optimizer.step()
        return measure(self, hidden_TD + shift_D.detach(), targets)

    patch.setattr(features.Measure, "__call__", fit_and_measure)


@cheat("#1420, #1967, #2018", NGRAM, {COSTS: "bits coded"})
def a_gate_that_reads_the_target(patch):
    """An expert is on where the target has the beginning that the expert is for; a decoder cannot know that beforehand."""
    vocabulary = Tokenizer.from_bytes((ARTIFACTS / "tokenize/tokenizer.model").read_bytes())
    beginnings, scan = np.array([piece[:2] for piece in vocabulary.pieces]), match.MatchModel.scan

    def scan_where_it_helps(self, tokens):
        matches, lengths = scan(self, tokens)
        return matches, lengths * (beginnings[tokens] == beginnings[matches])

    patch.setattr(match.MatchModel, "scan", scan_where_it_helps)


@cheat("#846", NGRAM, {CAUSAL: "nats", COSTS: "bits coded", ONE_PASS: "eval_ngram: token"})
def weights_of_the_mixture_from_the_future(patch):
    """What matches are worth is learned on the whole text first; the counts behind them are those of the text so far."""
    learn = weights.tilt_and_learn
    patch.setattr(weights, "tilt_and_learn", lambda *arguments: [learn(*arguments) for _ in range(9)])


@cheat("—", "certify", {COSTS: "bits coded", ONE_PASS: "eval_ngram: token 0"})
def scores_edited_by_hand(patch):
    """A tenth is taken off every score, in the file."""
    edited_scores(slice(None), 0.9)


@cheat("—", "certify", {PROBABILITIES: "scores nan nats", ONE_PASS: "nan", COSTS: "nan scored"})
def a_score_that_is_no_number(patch):
    """One token scores NaN, which a sum over numbers that ignores it would not show."""
    edited_scores(slice(400, 401), np.nan)


@cheat("#1872, #1905", "certify", {PROBABILITIES: "eval_ngram: token 1,500 scores -", COSTS: "bits coded"})
def a_probability_above_one(patch):
    """A score that is negative, far behind the text that is coded."""
    edited_scores(slice(1500, 1501), -50)


def edited_scores(rows: slice, factor: float) -> None:
    path = ARTIFACTS / "eval_ngram/scores.npy"
    scores = np.load(path)
    scores["nats"][rows] *= factor
    write_array(path, scores)


@cheat("#2131, not to be reproduced", TTT, {ONE_PASS: "eval_ttt: token 0"})
def a_score_of_another_network(patch):
    """The float checkpoint is scored; the artifact holds the quantised one."""

    def float_model() -> GPT:
        architecture, state = checkpoint.load(ARTIFACTS / "prequant_ttt/checkpoint.safetensors")
        model = GPT(architecture)
        model.load_state_dict(state)
        return model

    patch.setattr(eval_ttt, "decoded_model", float_model)


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
