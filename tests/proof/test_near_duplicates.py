"""Runs of letters that val shares with other text, against sets of the runs themselves."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.proof import near_duplicates
from fairway.proof.near_duplicates import Learned, letters

TEXT = st.text(alphabet="abé ,\0", max_size=40)
RANDOM = np.random.default_rng(0)
PROSE = " ".join("".join(RANDOM.choice(list("etaoinshrdlu"), size)) for size in RANDOM.integers(2, 9, 4000))


def copied(documents: list[str], *learned: str) -> near_duplicates.Copied:
    runs = Learned(documents)
    for text in learned:
        runs.update(text.encode())
    return runs.copied()


def share(documents: list[str], *learned: str) -> float:
    found = copied(documents, *learned)
    return found.found.sum() / found.runs.sum()


@given(st.lists(TEXT, min_size=1, max_size=4), TEXT, st.lists(st.integers(0, 80), max_size=3))
def test_runs_are_found_as_sets_would(documents, learned, cuts):
    run = 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "RUN", run)
        runs = Learned(documents)
        content = learned.encode()
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), None], strict=True):
            runs.update(content[start:end])  # cut anywhere, within characters too
        found = runs.copied()
    plain = [[text[i : i + run] for i in range(len(text) - run + 1)] for text in map(bare, [learned, *documents])]
    assert found.runs.tolist() == [len(each) for each in plain[1:]]
    assert found.found.tolist() == [sum(part in plain[0] for part in each) for each in plain[1:]]


def bare(text: str) -> str:
    return "".join(character for character in text if character.isalpha()).replace("é", "e")


@pytest.mark.parametrize(
    "other",
    [
        "THE ÉTAT, No. 12: naïve",
        "the\u00a0état\n\nno\t12\u200b naive",
        "t-h-e e\u0301tat NO 12 \0 naı\u0308ve".replace("ı", "i"),
        "ｔｈｅ état ｎｏ１２ naïve",
        "the etat no12naive",
    ],
)
def test_case_accents_white_space_and_punctuation_do_not_count(other):
    assert letters(other).tobytes() == letters("The État (no 12), naïve.").tobytes()


def test_other_scripts_have_letters_too():
    assert len(letters("世界、平和。 가나다 عربي हिन्दी Ελλάδα")) == 2 + 2 + 3 + 4 + 3 + 6
    assert len(set(letters("가각간나다").tolist())) == 5  # syllables of Hangul stay whole
    assert letters("\U0001f600 \U000e0041 \uffff \0").size == 0


def test_a_changed_letter_hides_the_runs_around_it_and_no_more():
    length = len(letters(PROSE))
    middle = PROSE.index(" ", len(PROSE) // 2) - 1
    found = copied([PROSE], PROSE[:middle] + "x" + PROSE[middle + 1 :])
    assert found.runs.tolist() == [length - 39] and found.found.tolist() == [length - 39 - 40]


def test_a_document_is_found_inside_others_in_pieces_and_in_another_order():
    paragraphs = [PROSE[start : start + 1000] for start in range(0, 8000, 1000)]
    longer = PROSE[8000:10000]
    assert share(["".join(paragraphs)], longer + "".join(paragraphs) + longer) == 1
    assert share(["".join(paragraphs)], "".join(paragraphs[:4]), "\0", "".join(paragraphs[4:])) == 1
    assert 0.6 < share(["".join(paragraphs)], longer, *reversed(paragraphs)) < 1
    assert share(["".join(paragraphs)], longer) == 0


def test_short_documents_have_no_runs():
    assert copied([], PROSE).runs.size == 0 and copied(["Yes."], PROSE, "Yes.").runs.tolist() == [0]
    found = copied(["Yes.", "", PROSE[:200]], "Yes.", PROSE[:200])
    assert found.runs[:2].tolist() == [0, 0] and found.found.tolist() == found.runs.tolist()


def test_a_large_val_is_sampled_alike_on_both_sides(monkeypatch):
    monkeypatch.setattr(near_duplicates, "LARGEST", 2000)
    half = PROSE[: len(PROSE) // 2]
    found = copied([half, PROSE[len(half) :]], half)
    assert 1600 < found.runs.sum() < 2400
    assert found.found.tolist() == [found.runs[0], 0]


def test_memory_does_not_grow_with_the_learned_text():
    runs = Learned([PROSE])
    chunk = PROSE.encode()
    runs.update(chunk)
    tracemalloc.start()
    for _ in range(20):
        runs.update(chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * len(chunk)
