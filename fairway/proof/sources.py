"""What the splits should be: the documents or shards that params name are read again, and the vocabulary is learned again.

Nothing that `tokenize` wrote is read. Of documents, the text is compared: it has many spellings in tokens. Of ready-made
shards, the tokens. Memory is that of `tokenize`: a hash per document and the sample for the vocabulary.
"""

import hashlib
from collections import Counter
from typing import NamedTuple

import numpy as np

from fairway.proof import overlap
from fairway.text import corpus, documents, shards, split
from fairway.text.config import Data, Tokenize
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer, train_bpe


class Content(NamedTuple):
    """Of text: UTF-8 with a NUL before each document. Of tokens: little-endian uint16."""

    sha256: str
    bytes: int


class Source(NamedTuple):
    key: str  # of the params that name the files
    tokens: bool  # whether the contents are tokens, not text; the witness's is always text
    splits: dict[str, Content]
    digests: dict[str, np.ndarray]  # overlap.digest of every document; none of ready-made shards
    tokenizer: bytes


class Hash:
    """A content, given piece by piece."""

    def __init__(self):
        self._sha256, self._bytes = hashlib.sha256(), 0

    def update(self, piece: bytes) -> None:
        self._sha256.update(piece)
        self._bytes += len(piece)

    def content(self) -> Content:
        return Content(self._sha256.hexdigest(), self._bytes)


def read(data: Data, config: Tokenize) -> Source:
    """Raises InputError if the files cannot be read again."""
    return of_documents(data, config) if config.source == "documents" else of_shards(config)


def of_documents(data: Data, config: Tokenize) -> Source:
    sample, seen = split.SmallestSample(config.sample_bytes), set()
    hashes, found = {name: Hash() for name in corpus.SPLITS}, {name: overlap.Digests() for name in corpus.SPLITS}
    for text in documents.read_documents(data.documents, data.text_field):
        encoded = text.encode()
        identity = split.digest(encoded)
        if identity in seen:
            continue
        seen.add(identity)
        name = corpus.assigned(identity, config)
        hashes[name].update(b"\0" + encoded)
        found[name].add(encoded)
        if name == "train":
            sample.add(identity, text, len(encoded))
    contents = {name: hashed.content() for name, hashed in hashes.items()}
    byte_level = config.tokenizer == "bytes"
    model = BYTE_MODEL if byte_level else train_bpe(sample.texts(), config.vocabulary_size, config.sample_bytes)
    return Source("data.documents", False, contents, {name: each.array() for name, each in found.items()}, model)


def of_shards(config: Tokenize) -> Source:
    model = BYTE_MODEL
    if config.tokenizer == "bpe":
        model = documents.find_files([config.shards_tokenizer], "tokenize.shards_tokenizer")[0].read_bytes()
    tokenizer, again = Tokenizer.from_bytes(model), Recount()
    train, val = (
        shards.read_shards(documents.find_files(globs, key), tokenizer.vocabulary_size)
        for globs, key in ((config.shards_train, "tokenize.shards_train"), (config.shards_val, "tokenize.shards_val"))
    )
    seen, _ = corpus.copy_val(val, tokenizer, again, ignore)
    corpus.copy_train(train, tokenizer, config, seen, again, ignore)
    contents = {name: hashed.content() for name, hashed in again.hashes.items()}
    return Source("tokenize.shards_train and tokenize.shards_val", True, contents, {}, model)


def ignore(amount: int) -> None:
    """Progress that nobody watches."""


class Recount:
    """Takes the documents that fairway.text.corpus would write, and keeps hashes alone."""

    def __init__(self):
        self.documents, self.hashes = Counter(), {name: Hash() for name in corpus.SPLITS}

    def write(self, name: str, tokens: np.ndarray, size: int) -> None:
        self.documents[name] += 1
        self.hashes[name].update(tokens.astype(shards.TOKEN, copy=False).tobytes())

    def write_hashed(self, name: str, tokens: np.ndarray, encoded: bytes, identity: int) -> None:
        self.write(name, tokens, len(encoded))

    def write_witness(self, encoded: bytes, identity: int) -> None:
        self.hashes["witness"].update(b"\0" + encoded)
