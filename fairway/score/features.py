"""Scores of a stream by a network that learns from it, and whatever else the mixture reads of each target: its features.

One pass over the text; each target is scored before anything learns from it: the weights (ttt.py), the continuous cache, the
match model. The tree mixture reads of the network the log-odds on the target's path down the vocabulary tree.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fairway.lm.model import GPT
from fairway.mixture.config import Cache
from fairway.mixture.features import Features, feature_type
from fairway.mixture.match import MatchModel
from fairway.mixture.neural_cache import ContinuousCache
from fairway.mixture.paths import path_log_odds
from fairway.mixture.tree import leaf_ranks
from fairway.score.config import Eval, Ttt
from fairway.score.streaming import entropy, log_probabilities, score_stream
from fairway.score.ttt import TestTimeTraining


def tree_of(model: GPT) -> np.ndarray:
    """The ranks of the vocabulary tree, uint16 (V,), that the artifact's own head decides."""
    return leaf_ranks(model.lm_head.detach().float().cpu().numpy())


def blend(neural: Tensor, cached: Tensor, nearest: Tensor, weight: float) -> Tensor:
    """Network and cache together (…, V), the cache with `weight`; the network alone where nothing is remembered."""
    return torch.where((nearest != 0)[..., None], torch.lerp(neural, cached, weight), neural)


def cache_of(settings: Cache, vocabulary_size: int, mixture: str) -> ContinuousCache | None:
    """The continuous cache, where there is one and the mixture reads it."""
    if settings.tokens and mixture == "tree":
        return ContinuousCache(settings.tokens, settings.sharpness, vocabulary_size)
    return None


def record_stream(
    model: GPT,
    tokens: np.ndarray,
    scoring: Eval,
    learning: Ttt,
    caching: Cache,
    mixture: str,
    targets: int | None = None,
    advance: Callable[[int], None] = lambda count: None,
    rank: int = 0,
    size: int = 1,
    average_: Callable[[list[Tensor]], None] = lambda tensors: None,
) -> Features:
    """Score tokens[1:] and record what `mixture` (`ngram.mixture`) reads; change the weights of `model` where it learns at
    test time.

    `targets` is the length of the whole text where `tokens` is only its beginning. Several ranks share the gradients, and the
    segments too unless there is a cache, which must see all of the text.
    """
    measure = Measure(model, tokens, caching, mixture)  # before the weights change
    training = None
    if learning.optimizer != "none":
        training = TestTimeTraining(model, learning, targets or len(tokens) - 1, rank, size, average_)
    shared = (rank, size, average_) if measure.cache is None else ()
    scores = score_stream(model, tokens, scoring, training, measure, advance, *shared)
    features = np.empty(len(tokens) - 1, measure.type)
    features["token"] = tokens[1:]
    for name, values in scores.items():
        features[name] = values
    return features


class Measure:
    """What is kept of each target: called with the hidden states (T, D) of the inputs before them, in the order of the text."""

    def __init__(self, model: GPT, tokens: np.ndarray, caching: Cache, mixture: str):
        V, device = model.architecture.vocabulary_size, next(model.parameters()).device
        self.model, self.tokens, self.weight = model, tokens, caching.weight
        self.type = feature_type(mixture, V)
        self.leaves_V = torch.from_numpy(np.argsort(tree_of(model))).to(device)
        self.cache = cache_of(caching, V, mixture)
        self.matches = MatchModel(V).scan(tokens[1:])[0] if "match_nats" in self.type.names else None

    @torch.no_grad()
    def __call__(self, hidden_TD: Tensor, targets: slice) -> dict[str, Tensor]:
        """The fields of the features but the token itself, as tensors of T rows."""
        log_probabilities_TV = log_probabilities(self.model, hidden_TD)
        target_T = column(self.tokens[1:], targets, hidden_TD.device)
        found = {"nats": nats_of(log_probabilities_TV, target_T), "entropy": entropy(log_probabilities_TV)}
        if self.matches is not None:
            found["match_nats"] = nats_of(log_probabilities_TV, column(self.matches, targets, hidden_TD.device))
        if "paths" in self.type.names:
            found |= self._paths(log_probabilities_TV.exp(), hidden_TD, target_T)
        return found

    def _paths(self, neural_TV: Tensor, hidden_TD: Tensor, target_T: Tensor) -> dict[str, Tensor]:
        path_TN = path_log_odds(neural_TV, target_T, self.leaves_V)
        nearest_T, cached_path_TN = torch.zeros(len(target_T), device=hidden_TD.device), path_TN
        if self.cache is not None:
            cached_TV, nearest_T = self.cache.advance(hidden_TD, target_T)
            cached_path_TN = path_log_odds(blend(neural_TV, cached_TV, nearest_T, self.weight), target_T, self.leaves_V)
        return {"paths": torch.stack((path_TN, cached_path_TN), dim=-1), "nearest": nearest_T}


def nats_of(log_probabilities_TV: Tensor, tokens_T: Tensor) -> Tensor:
    return -log_probabilities_TV.gather(1, tokens_T[:, None])[:, 0]


def column(values: np.ndarray, targets: slice, device: torch.device) -> Tensor:
    return torch.from_numpy(values[targets].astype(np.int64)).to(device)
