"""Documents found twice, against sets of the documents themselves."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof.overlap import Digests, repeats

DOCUMENTS = st.lists(st.binary(max_size=3).map(lambda text: text.replace(b"\0", b"")), max_size=12)


def digests(documents: list[bytes]) -> np.ndarray:
    found = Digests()
    for document in documents:
        found.add(document)
    return found.array()


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_documents_are_found_as_sets_would(train, holdout, val):
    splits = {"train": train, "holdout": holdout, "val": val}
    filled = {name: [document for document in documents if document] for name, documents in splits.items()}
    expected = {
        "holdout and train": [index for index, document in enumerate(filled["holdout"]) if document in filled["train"]],
        "val and train": [index for index, document in enumerate(filled["val"]) if document in filled["train"]],
        "val and holdout": [index for index, document in enumerate(filled["val"]) if document in filled["holdout"]],
    }
    found = repeats({name: digests(documents) for name, documents in splits.items()})
    twice = found.pop("val twice")
    assert {place: indices.tolist() for place, indices in found.items()} == expected
    assert len(twice) == sum(count - 1 for count in Counter(filled["val"]).values())
    assert all(filled["val"][index] in filled["val"][:index] for index in twice)


@given(DOCUMENTS, st.lists(st.integers(0, 40), max_size=4))
def test_a_text_is_cut_at_nul_wherever_its_chunks_end(documents, cuts):
    text = b"".join(b"\0" + document for document in documents)
    found = Digests()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True):
        found.update(text[start:end])
    assert np.array_equal(found.array(), digests(documents))
