"""Scores of a stream by a network that learns from it, and whatever else the mixture reads of each target: its features.

One pass over the text; each target is scored before anything learns from it: the weights (ttt.py), the continuous cache, the
match model. The tree mixture reads of the network the log-odds on the target's path down the vocabulary tree.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairway.lm.model import GPT
from fairway.mixture.config import Cache
from fairway.mixture.features import Features, feature_type
from fairway.mixture.match import MatchModel
from fairway.mixture.neural_cache import ContinuousCache
from fairway.mixture.tree import FLOOR, depth, leaf_ranks
from fairway.score.config import Eval, Ttt
from fairway.score.streaming import ALONE, Share, entropy, log_probabilities, nats_of, rows, score_stream
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
    ranks: Share = ALONE,
) -> Features:
    """Score tokens[1:] and record what `mixture` (`ngram.mixture`) reads; change the weights of `model` where it learns at
    test time.

    `targets` is the length of the whole text where `tokens` is only its beginning. Ranks share the gradients, and the segments
    too unless there is a cache, which must see all of the text.
    """
    measure = Measure(model, tokens, caching, mixture)  # before the weights change
    training = None
    if learning.optimizer != "none":
        training = TestTimeTraining(model, learning, targets or len(tokens) - 1, ranks)
    scores = score_stream(model, tokens, scoring, training, measure, advance, ranks if measure.cache is None else ALONE)
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
        target_T = rows(self.tokens, [(targets.start + 1, targets.stop + 1)], hidden_TD.device)[0]
        found = {"nats": nats_of(log_probabilities_TV, target_T), "entropy": entropy(log_probabilities_TV)}
        if self.matches is not None:
            match_T = rows(self.matches, [(targets.start, targets.stop)], hidden_TD.device)[0]
            found["match_nats"] = nats_of(log_probabilities_TV, match_T)
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


def path_log_odds(probabilities_TV: Tensor, targets_T: Tensor, leaves_V: Tensor) -> Tensor:
    """The log-odds of going right at each node on the targets' paths, float32 (T, depth); 0 beyond the end of a path.

    `leaves_V` are the tokens in the order of the leaves. Sums are in float64: a node's share may be tiny.
    """
    V = len(leaves_V)
    ranks_V = torch.empty_like(leaves_V).scatter_(0, leaves_V, torch.arange(V, device=leaves_V.device))
    below_TV1 = F.pad(probabilities_TV[:, leaves_V].double().cumsum(1), (1, 0))
    rank_T1 = ranks_V[targets_T][:, None]
    lo_T1, hi_T1 = torch.zeros_like(rank_T1), torch.full_like(rank_T1, V)
    odds = []
    for _ in range(depth(V)):
        middle_T1 = (lo_T1 + hi_T1) // 2
        left, center, right = (below_TV1.gather(1, place) for place in (lo_T1, middle_T1, hi_T1))
        here = torch.log((right - center).clamp(min=FLOOR)) - torch.log((center - left).clamp(min=FLOOR))
        odds.append(torch.where(hi_T1 - lo_T1 > 1, here, 0.0))
        goes_right = rank_T1 >= middle_T1
        lo_T1, hi_T1 = torch.where(goes_right, middle_T1, lo_T1), torch.where(goes_right, hi_T1, middle_T1)
    return torch.cat(odds, dim=1).float()
