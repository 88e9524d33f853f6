"""The certificate's claims about text: that val is none of what was learned from, and that every split is what it should be.

Pure functions of measurements, as in claims.py; data_checks.py takes them. Documents are counted from 1.
"""

import hashlib

import numpy as np

from fairway.proof.claims import RULES, Claim
from fairway.proof.near_duplicates import RUN, Copied
from fairway.proof.sources import Content, Source

SHOWN = 3  # documents or pieces that a result names
OPENING = 40  # characters of a document that are shown
HALF = 0.5  # of a document's runs: then it is called a near duplicate
PARTS = 3  # times as much may be copied in smaller parts, which honest text shares: phrases, quotations, notices
LONGEST = 16  # characters of a piece that SentencePiece learns


def named(texts: list[str]) -> str:
    """The first of them, escaped, and how many more there are."""
    more = f" and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def opening(documents: list[str], index: int) -> str:
    """The number and the beginning of a document, escaped."""
    text = documents[index]
    return f"{index + 1:,} {text[:OPENING]!r}" + "…" * (len(text) > OPENING)


def disjoint(repeats: dict[str, np.ndarray], counts: dict[str, int], documents: list[str]) -> Claim:
    """`repeats`: documents found twice, by place (overlap.py); `counts`: documents of each split; `documents`: val's."""
    wrong = []
    for place, indices in repeats.items():
        names = f" ({named([opening(documents, index) for index in indices])})" if place.startswith("val ") else ""
        wrong += [f"{len(indices):,} documents in {place}{names}"] * (len(indices) > 0)
    result = "; ".join(wrong) or "no document stands in two splits, none twice in val"
    how = "digests of the text of every document, decoded from the shards or read from its source again"
    amount = ", ".join(f"{name} {count:,}" for name, count in counts.items()) + " documents"
    return Claim(RULES, "train, holdout and val share no document", how, amount, not wrong, result)


def unlike(copied: Copied, documents: list[str], most: float) -> Claim:
    """`copied`: what of the val `documents` stands in the learned text; `most`: the share of val's runs that near duplicates
    may have. PARTS times as many may be copied in all."""
    shares, every = copied.found / np.maximum(copied.runs, 1), max(int(copied.runs.sum()), 1)
    near = [index for index in np.argsort(-shares, kind="stable") if shares[index] >= HALF]
    whole, parts = int(copied.runs[near].sum()) / every, int(copied.found.sum()) / every
    in_all = min(PARTS * most, 1)
    result = f"{100 * parts:.2f} % of val is copied, at most {100 * in_all:g} % may be"
    if near:
        names = named([f"{opening(documents, index)} ({100 * shares[index]:.0f} %)" for index in near])
        result += f"; {100 * whole:.2f} % in documents of which half or more is, at most {100 * most:g} %: {names}"
    how = (
        f"every run of {RUN} letters and digits of val looked up in train and holdout, whatever the case, accents, white space "
        f"and punctuation (limits: certify.near_duplicates); not found: paraphrases, translations, a change every {RUN} letters"
    )
    amount = f"{copied.runs.sum():,} runs in {np.count_nonzero(copied.runs):,} of {len(documents):,} documents"
    return Claim(RULES, "val is not copied from train or holdout", how, amount, whole <= most and parts <= in_all, result)


def tied(source: Source | str, contents: dict[str, Content], strange: list[int], documents: list[str]) -> Claim:
    """`source`: what the splits should be, or why it is not known; `contents`: what they are; `strange`: val documents that
    the source does not give."""
    claim = "the splits are those of the data"
    how = "data and shards that params name, read and split again, by SHA-256"
    amount = f"{sum(content.bytes for content in contents.values()):,} bytes"
    if isinstance(source, str):
        return Claim(RULES, claim, how, amount, False, source)
    what = "tokens" if source.tokens else "text"
    wrong = [
        f"{name} has {contents[name].bytes:,} bytes of {what}, {source.key} gives {expected.bytes:,}"
        + " other ones" * (contents[name].bytes == expected.bytes)
        for name, expected in source.splits.items()
        if contents[name] != expected
    ]
    if strange:
        wrong.append(f"it does not give val {named([opening(documents, index) for index in strange])}")
    result = "; ".join(wrong) or f"{', '.join(source.splits)}: the same {what} as in {source.key}"
    return Claim(RULES, claim, how, amount, not wrong, result)


def vocabulary(source: Source | str, tokenizer: bytes, learned: bool, foreign: list[str]) -> Claim:
    """`tokenizer`: the model that the submission uses; `learned`: whether the source's was trained again, not read;
    `foreign`: pieces longer than LONGEST characters that val uses and train never does."""
    how = "trained again from the train documents, compared byte for byte" if learned else "compared with the file in params"
    how += f"; pieces of more than {LONGEST} characters looked up in train"
    wrong = []
    if isinstance(source, str):
        wrong.append(source)
    elif source.tokenizer != tokenizer:
        found, expected = (hashlib.sha256(model).hexdigest()[:16] for model in (tokenizer, source.tokenizer))
        wrong.append(f"the submission's tokenizer (SHA-256 {found}…) is not the one that train gives ({expected}…)")
    if foreign:
        wrong.append(f"{len(foreign):,} long pieces stand in val and never in train: {named(foreign)}")
    result = "; ".join(wrong) or "identical"
    return Claim(RULES, "the vocabulary knows train alone", how, f"{len(tokenizer):,} bytes", not wrong, result)
