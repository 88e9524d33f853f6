"""Documents found twice, against sets of the documents themselves."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof.overlap import digests, repeats
from fairway.text import shards

BOS = 1
DOCUMENTS = st.lists(st.lists(st.integers(2, 4), max_size=3).map(tuple), max_size=12)


def stream(documents: list[tuple[int, ...]]) -> np.ndarray:
    return np.array([token for document in documents for token in (BOS, *document)], dtype=np.uint16)


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_documents_are_counted_as_sets_would(train, holdout, val):
    splits = {"train": train, "holdout": holdout, "val": val}
    filled = {name: [document for document in documents if document] for name, documents in splits.items()}
    expected = {
        "holdout and train": sum(document in filled["train"] for document in filled["holdout"]),
        "val and train": sum(document in filled["train"] for document in filled["val"]),
        "val and holdout": sum(document in filled["holdout"] for document in filled["val"]),
        "val twice": sum(count - 1 for count in Counter(filled["val"]).values()),
    }
    assert repeats({name: digests(stream(documents), BOS) for name, documents in splits.items()}) == expected


def test_a_document_over_chunks_and_shards_is_one(monkeypatch):
    documents = [tuple(range(2, 30)), (5, 6), tuple(range(2, 31))]
    whole = stream(documents)
    monkeypatch.setattr(shards, "CHUNK", 7)
    assert np.array_equal(digests(shards.Shards([whole[:20], whole[20:40], whole[40:]]), BOS), digests(whole, BOS))
    assert len(np.unique(digests(whole, BOS))) == 3
