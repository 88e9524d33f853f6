"""How much of the validation text stands in text that was learned from, in long runs: near duplicates, excerpts, splices.

Only letters and digits count, without case and accents, so white space, punctuation, NUL and the borders of documents hide
nothing. Every run of RUN letters of val is looked up among all runs of the learned text, by 64-bit hashes: a letter that
was changed hides the RUN runs around it and no more. RUN is eight to ten words of English, 13 tokens of a vocabulary of
1,024: GPT-2 and PaLM looked for 8 words, GPT-3 for 13, Llama 2 for 10 tokens.

The learned text is read once, in chunks; memory does not grow with it. If val has more than LARGEST runs, those with the
smallest hashes stand for all, on both sides.
"""

import codecs
import functools
import unicodedata
from typing import NamedTuple

import numpy as np

RUN = 40  # letters
LARGEST = 2**22  # runs of val that are looked up
FILTER = 2**26  # entries of the table that most runs of the learned text do not pass
BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial that is a run's hash, modulo 2**64; odd
INVERSE = np.uint64(pow(int(BASE), -1, 2**64))
LAST = 0x32000  # beyond: private use, tags and selectors, none of them letters
HANGUL = range(0xAC00, 0xD7A4)  # a syllable that is taken apart begins as a hundred others do


class Copied(NamedTuple):
    """Arrays (documents,) of int64."""

    runs: np.ndarray  # runs of each document that were looked up; 0 if it has fewer than RUN letters
    found: np.ndarray  # and how many of them stand in the learned text


class Learned:
    """The runs of `documents`, and which of them the text given to `update` contains."""

    def __init__(self, documents: list[str]):
        self._keep = np.uint64(min(1, LARGEST / max(sum(map(len, documents)), 1)) * (2**64 - 2**11))
        runs = [self._sampled(letters(document)) for document in documents]
        self._owners = np.repeat(np.arange(len(runs)), np.array([len(part) for part in runs], int))
        self._known, self._places = np.unique(np.concatenate([np.empty(0, np.uint64), *runs]), return_inverse=True)
        self._found = np.zeros(len(self._known), bool)
        self._filter = np.zeros(FILTER, bool)
        self._filter[self._known % FILTER] = True
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._last = np.empty(0, np.uint32)  # letters of a run that continues in the next chunk
        self._documents = len(documents)

    def update(self, chunk: bytes) -> None:
        """The next bytes of the learned text, cut anywhere."""
        text = np.concatenate((self._last, letters(self._decoder.decode(chunk))))
        self._last = text[max(len(text) - RUN + 1, 0) :]
        runs = self._sampled(text)
        runs = runs[self._filter.take((runs % FILTER).astype(np.int64))]  # three times as fast as an index of uint64
        places = np.searchsorted(self._known, runs)
        places = places[self._known.take(places, mode="clip") == runs] if len(runs) else places
        self._found[places] = True

    def copied(self) -> Copied:
        """What was found up to now."""
        runs = np.bincount(self._owners, minlength=self._documents)
        found = np.bincount(self._owners, self._found[self._places], self._documents)
        return Copied(runs, found.astype(np.int64))

    def _sampled(self, text: np.ndarray) -> np.ndarray:
        runs = hashes(text)
        return runs[runs <= self._keep]


def letters(text: str) -> np.ndarray:
    """uint32: the code points of the letters and digits, folded."""
    folded = _folding().take(np.frombuffer(text.encode("utf-32-le"), np.uint32), mode="clip")
    return folded[folded != 0]


@functools.cache
def _folding() -> np.ndarray:
    """uint32 (LAST + 1,): the letter or digit that a code point stands for, 0 for anything else."""
    return np.array([_folded(chr(code)) if code < LAST else 0 for code in range(LAST + 1)], np.uint32)


def _folded(character: str) -> int:
    if not character.isalnum():
        return 0
    if ord(character) in HANGUL:
        return ord(character)
    plain = unicodedata.normalize("NFKD", character).casefold()
    return ord(next(filter(str.isalnum, plain), "\0"))


def hashes(text: np.ndarray) -> np.ndarray:
    """uint64 (len(text) − RUN + 1,): of every run of RUN letters, Σ letter · BASE**place modulo 2**64."""
    if len(text) < RUN:
        return np.empty(0, np.uint64)
    sums = np.cumsum(text * _powers(BASE, len(text)))
    sums[RUN:] -= sums[:-RUN].copy()
    return sums[RUN - 1 :] * _powers(INVERSE, len(text) - RUN + 1)


def _powers(base: np.uint64, count: int) -> np.ndarray:
    """uint64 (count,): base, base**2 and so on."""
    return _table(base, 1 << count.bit_length())[:count]


@functools.cache
def _table(base: np.uint64, count: int) -> np.ndarray:
    return np.cumprod(np.full(count, base))
