"""Features that eval_ttt cannot have written are refused before compiled code, which trusts its indices, gets them."""

from pathlib import Path

import numpy as np
import pytest

from fairway.errors import InputError
from fairway.mixture.features import Features, feature_type
from stages import eval_ngram

V, TARGETS = 40, 9
FOLDER = Path("artifacts/eval_ttt")
RERUN = "run `dvc repro` to write it again"


def features(mixture: str, **changes) -> Features:
    """Features of some targets as eval_ttt writes them, with changes (index, value) to their columns."""
    random = np.random.default_rng(0)
    rows = np.zeros(TARGETS, feature_type(mixture, V))
    for name in rows.dtype.names:
        rows[name] = random.random(rows[name].shape)
    rows["token"] = random.integers(V, size=TARGETS)
    for name, (index, value) in changes.items():
        rows[name][index] = value
    return rows


@pytest.mark.parametrize("mixture", ["tree", "tilt", "linear", "none"])
def test_what_eval_ttt_writes_is_taken(mixture):
    eval_ngram.check(features(mixture, token=(0, V - 1)), V)


@pytest.mark.parametrize(
    ("mixture", "changes", "sentence"),
    [
        ("tree", {"token": (3, V)}, "column 'token' goes up to 40, expected 39 at most"),
        ("none", {"nats": (0, np.nan)}, "column 'nats' holds what is not a finite number"),
        ("linear", {"entropy": (0, np.inf)}, "column 'entropy' holds what is not a finite number"),
        ("tilt", {"match_nats": (0, -np.inf)}, "column 'match_nats' holds what is not a finite number"),
        ("tree", {"nearest": (0, np.nan)}, "column 'nearest' holds what is not a finite number"),
        ("tree", {"paths": ((0, 5, 1), np.nan)}, "column 'paths' holds what is not a finite number"),
    ],
)
def test_what_it_cannot_have_written_is_refused(mixture, changes, sentence):
    with pytest.raises(InputError) as error:
        eval_ngram.check(features(mixture, **changes), V)
    assert str(error.value) == f"{FOLDER}/features.npy: {sentence}; {RERUN}"
