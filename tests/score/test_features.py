"""The features of a stream: what the mixture reads, and nothing else is computed."""

import numpy as np
import pytest

from fairway.mixture.features import feature_type
from fairway.mixture.match import MatchModel
from fairway.mixture.neural_cache import ContinuousCache
from fairway.score.config import Ttt
from fairway.score.features import record_stream
from tests.plain_settings import SETTINGS

TOKENS = np.concatenate(([1], np.random.default_rng(0).integers(0, 12, 60))).astype(np.uint16)


@pytest.mark.parametrize(("mixture", "reads"), [("tree", {"cache"}), ("tilt", {"match"}), ("linear", set()), ("none", set())])
def test_only_what_the_mixture_reads_is_computed(tiny, shaken, monkeypatch, mixture, reads):
    computed = set()
    for name, kind, method in (("cache", ContinuousCache, "advance"), ("match", MatchModel, "scan")):
        plain = getattr(kind, method)
        monkeypatch.setattr(kind, method, lambda *given, name=name, plain=plain: (computed.add(name), plain(*given))[1])
    features = record_stream(shaken(tiny), TOKENS, SETTINGS.eval, Ttt(), SETTINGS.cache, mixture)
    assert computed == reads and features.dtype == feature_type(mixture, tiny.vocabulary_size)
    assert features["token"].tolist() == TOKENS[1:].tolist()
    assert all(np.isfinite(features[name]).all() and features[name].any() for name in features.dtype.names)
