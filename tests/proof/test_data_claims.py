"""What the claims about text say of measurements; tests/proof/test_data_checks.py takes real ones."""

import numpy as np
import pytest

from fairway.proof.data_claims import disjoint, tied, unlike, vocabulary
from fairway.proof.near_duplicates import Copied
from fairway.proof.sources import Content, Source

DOCUMENTS = ["One \x1b[2J\u202e" + "x" * 60, "Two", "Three", "Four", "Five"]
ONE = "1 'One \\x1b[2J\\u202e" + "x" * 31 + "'…"  # nothing of it reaches a terminal as it is
NONE = np.array([], int)
SOURCE = Source("data.documents", False, {"train": Content("a", 9), "val": Content("b", 3)}, {}, b"model")


def test_splits_that_share_nothing():
    claim = disjoint({"val and train": NONE, "val twice": NONE}, {"train": 8000, "val": 10}, DOCUMENTS)
    assert claim.passed and claim.amount == "train 8,000, val 10 documents" and claim.condition == "rules"


def test_documents_found_twice_are_named():
    found = {"holdout and train": np.array([7]), "val and train": np.array([0, 1, 2, 4]), "val twice": np.array([3])}
    claim = disjoint(found, {"train": 8, "holdout": 8, "val": 5}, DOCUMENTS)
    assert not claim.passed and claim.result == (
        "1 documents in holdout and train; "
        f"4 documents in val and train ({ONE}, 2 'Two', 3 'Three' and 1 more); 1 documents in val twice (4 'Four')"
    )


def copied(*found: int) -> Copied:
    return Copied(np.array([100, 0, 100, 100, 100]), np.array(found))


def test_near_duplicates_are_named():
    claim = unlike(copied(70, 0, 49, 98, 0), DOCUMENTS, 0.5)
    assert claim.passed and claim.amount == "400 runs in 4 of 5 documents"
    assert claim.result == (
        "54.25 % of val is copied, at most 100 % may be; 50.00 % in documents of which half or more is, at most 50 %: "
        f"4 'Four' (98 %), {ONE} (70 %)"
    )
    assert not unlike(copied(70, 0, 49, 98, 0), DOCUMENTS, 0.49).passed


@pytest.mark.parametrize(("found", "passed"), [((20, 0, 20, 20, 0), True), ((20, 0, 20, 21, 0), False)])
def test_parts_of_documents_count_together(found, passed):
    claim = unlike(copied(*found), DOCUMENTS, 0.05)
    assert claim.passed is passed and claim.result == f"{sum(found) / 4:.2f} % of val is copied, at most 15 % may be"
    assert "paraphrases" in claim.how and "certify.near_duplicates" in claim.how


def test_nothing_to_look_up_is_said():
    claim = unlike(Copied(np.zeros(5, int), np.zeros(5, int)), DOCUMENTS, 0.05)
    assert claim.passed and claim.amount == "0 runs in 0 of 5 documents"


def test_splits_that_the_data_gives():
    claim = tied(SOURCE, dict(SOURCE.splits), [], DOCUMENTS)
    assert claim.passed and claim.result == "train, val: the same text as in data.documents" and claim.amount == "12 bytes"


def test_splits_that_the_data_does_not_give():
    claim = tied(SOURCE, {"train": Content("c", 10), "val": Content("d", 3)}, [1], DOCUMENTS)
    assert not claim.passed and claim.result == (
        "train has 10 bytes of text, data.documents gives 9; val has 3 bytes of text, data.documents gives 3 other ones; "
        "it does not give val 2 'Two'"
    )


def test_data_that_cannot_be_read_proves_nothing():
    for claim in (tied("cannot be read again", {}, [], []), vocabulary("cannot be read again", b"model", True, [])):
        assert not claim.passed and claim.result == "cannot be read again"


def test_a_vocabulary():
    assert vocabulary(SOURCE, b"model", True, []).passed
    claim = vocabulary(SOURCE, b"other", True, ["'a long piece'"])
    assert not claim.passed and claim.result == (
        "the submission's tokenizer (SHA-256 d9298a10d1b07358…) is not the one that train gives (9372c470eeadd5ec…); "
        "1 long pieces stand in val and never in train: 'a long piece'"
    )
