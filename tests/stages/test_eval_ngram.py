"""Features that eval_ttt cannot have written is refused before compiled code, which trusts its indices, gets it."""

from pathlib import Path

import numpy as np
import pytest

from fairway.errors import InputError
from fairway.mixture.features import Features
from fairway.score.files import hint_table, read_evidence, table
from stages import eval_ngram

V, TARGETS = 40, 9
FOLDER = Path("artifacts/eval_ttt")
RERUN = "run `dvc repro` to write it again"


def write(**changes) -> None:
    """Features of some targets as eval_ttt writes it, with changes (index, value) to its columns."""
    random = np.random.default_rng(0)
    nats, entropy, hint_nats, nearest = random.random((4, TARGETS)).astype(np.float32)
    tokens, hints = random.integers(V, size=(2, TARGETS)).astype(np.uint16)
    paths = random.normal(size=(TARGETS, 6, 2)).astype(np.float32)
    whole = Features(tokens, nats, entropy, hints, hint_nats, np.full(TARGETS, 8, np.uint16), paths, nearest)
    for name, (index, value) in changes.items():
        getattr(whole, name)[index] = value
    stream = np.concatenate(([1], whole.tokens)).astype(np.uint16)
    np.save(FOLDER / "scores.npy", table(stream, np.ones(2**16), nats, whole.entropy, whole.nats))
    np.save(FOLDER / "hints.npy", hint_table(whole))
    np.save(FOLDER / "paths.npy", whole.paths)


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)


def test_what_eval_ttt_writes_is_taken():
    write(tokens=(0, V - 1), hints=(0, V - 1), hint_orders=(0, 0))
    eval_ngram.check(read_evidence(FOLDER), V)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tokens": (3, V)}, "scores.npy: column 'token' goes up to 40, expected 39 at most"),
        ({"hints": (3, 65_535)}, "hints.npy: column 'hint' goes up to 65,535, expected 39 at most"),
        ({"hint_orders": (8, 9)}, "hints.npy: column 'order' goes up to 9, expected 8 at most"),
        ({"nats": (0, np.nan)}, "scores.npy: column 'neural' holds what is no finite number"),
        ({"entropy": (0, np.inf)}, "scores.npy: column 'entropy' holds what is no finite number"),
        ({"hint_nats": (0, -np.inf)}, "hints.npy: column 'nats' holds what is no finite number"),
        ({"nearest": (0, np.nan)}, "hints.npy: column 'nearest' holds what is no finite number"),
        ({"paths": ((0, 5, 1), np.nan)}, "paths.npy: column 'odds' holds what is no finite number"),
    ],
)
def test_what_it_cannot_have_written_is_refused(changes, sentence):
    write(**changes)
    with pytest.raises(InputError) as error:
        eval_ngram.check(read_evidence(FOLDER), V)
    assert str(error.value) == f"{FOLDER}/{sentence}; {RERUN}"


def test_paths_of_another_vocabulary_are_refused():
    write()
    with pytest.raises(InputError) as error:
        eval_ngram.check(read_evidence(FOLDER), 70)
    assert str(error.value) == f"{FOLDER}/paths.npy: paths of shape (6, 2), expected (7, 2); {RERUN}"
