"""Measurements of the claims in data_claims.py: one pass over the shards, one over the files that they were made from.

What cannot be measured, because the data cannot be read again, fails its claims; nothing is raised.
"""

from typing import NamedTuple

import numpy as np

from fairway.errors import InputError
from fairway.proof import data_claims, near_duplicates, overlap, sources
from fairway.proof.claims import Claim
from fairway.proof.sources import Content, Hash, Source
from fairway.text.config import Data, Tokenize
from fairway.text.shards import TOKEN, Shards
from fairway.text.tokenizer import Tokenizer

CHUNK = 2**16  # tokens
Splits = dict[str, np.ndarray | Shards]


class Corpus(NamedTuple):
    """What `tokenize` wrote, and the params that say what it should have written."""

    splits: Splits  # tokens of train, holdout and val
    witness: list[str]  # documents
    data: Data
    tokenize: Tokenize


class Stream(NamedTuple):
    """What was read of a split's shards."""

    text: Content
    tokens: Content
    digests: np.ndarray  # of the text between NULs


def claims(corpus: Corpus, documents: list[str], model: bytes, most: float) -> list[Claim]:
    """`documents`: those of val; `model`: the submission's tokenizer; `most`: what near duplicates may have of val, a share."""
    splits, witness, data, config = corpus
    documents = list(filter(None, documents))  # ready-made shards may hold empty ones
    tokenizer, source, learned = Tokenizer.from_bytes(model), read_source(data, config), near_duplicates.Learned(documents)
    streams = {name: read(tokens, tokenizer.pieces, [learned] * (name != "val")) for name, tokens in splits.items()}
    use_tokens = not isinstance(source, str) and source.tokens
    contents = {name: stream.tokens if use_tokens else stream.text for name, stream in streams.items()}
    contents["witness"] = content(witness)
    found = {name: stream.digests for name, stream in streams.items() if name != "val"}
    found |= {"witness": digests(witness), "val": digests(documents)}
    strange = []
    if not isinstance(source, str) and source.digests:
        strange = np.flatnonzero(~np.isin(found["val"], source.digests["val"])).tolist()
        same = [name for name in streams if name != "val" and contents[name] == source.splits[name]]
        found |= {name: source.digests[name] for name in same}  # in the stream, a NUL inside a document looks like a BOS
    counts = {name: len(each) for name, each in found.items()}
    trained = config.source == "documents" and config.tokenizer == "bpe"
    return [
        data_claims.disjoint(overlap.repeats(found), counts, documents),
        data_claims.unlike(learned.copied(), documents, most),
        data_claims.tied(source, contents, strange, documents),
        data_claims.vocabulary(source, model, trained, foreign_pieces(tokenizer, splits)),
    ]


def read_source(data: Data, config: Tokenize) -> Source | str:
    """What the splits should be, or why that cannot be said."""
    try:
        return sources.read(data, config)
    except (InputError, OSError) as error:
        return f"cannot be read again: {error}"


def read(tokens: np.ndarray | Shards, pieces: list[bytes], observers: list) -> Stream:
    """Decode a split; `observers` have `update`, which is given the text in chunks, with a NUL for every BOS."""
    text, codes, found = Hash(), Hash(), overlap.Digests()
    for start in range(0, len(tokens), CHUNK):
        part = tokens[start : start + CHUNK].astype(TOKEN, copy=False)
        codes.update(part.tobytes())
        chunk = b"".join(map(pieces.__getitem__, part.tolist()))
        for observer in (text, found, *observers):
            observer.update(chunk)
    return Stream(text.content(), codes.content(), found.array())


def digests(documents: list[str]) -> np.ndarray:
    """uint64 (documents,)"""
    found = overlap.Digests()
    for document in documents:
        found.add(document.encode())
    return found.array()


def content(documents: list[str]) -> Content:
    """Of documents as text."""
    text = Hash()
    for document in documents:
        text.update(b"\0" + document.encode())
    return text.content()


def foreign_pieces(tokenizer: Tokenizer, splits: Splits) -> list[str]:
    """The long pieces that val uses and train never does, escaped."""
    lengths = np.array([len(piece.decode(errors="replace")) for piece in tokenizer.pieces])
    long = np.flatnonzero((lengths > data_claims.LONGEST) & ~tokenizer.is_control)
    foreign = used(splits["val"], long) - used(splits["train"], long)
    return [repr(tokenizer.pieces[index].decode(errors="replace")) for index in sorted(foreign)]


def used(tokens: np.ndarray | Shards, wanted: np.ndarray) -> set[int]:
    """Those of the wanted tokens that occur."""
    found = set()
    for start in range(0, len(tokens) if len(wanted) else 0, CHUNK):
        found.update(np.intersect1d(tokens[start : start + CHUNK], wanted).tolist())
    return found
