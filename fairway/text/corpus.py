"""From documents to the token shards of each split, in two passes; from ready-made shards, in one.

Everything is streamed: memory holds an eight-byte hash per document, the tokenizer's sample, and one document. Each
function reports its progress through the argument `advance`.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import zstandard

from fairway.errors import InputError
from fairway.text import shards, split
from fairway.text.byte_count import table_bytes
from fairway.text.config import Data, Tokenize
from fairway.text.documents import read_documents, read_file
from fairway.text.tokenizer import Tokenizer

SPLITS = ("train", "holdout", "val")
PROBE = "\ufb01 \uff21  e\u0301\t\r\n x "  # text that NFKC or a normalizer of white space changes
ZSTD_LEVEL = 19
Advance = Callable[[int], None]


class Corpus:
    """The folder being written: the shards of each split, the val documents, and their counts and hashes."""

    def __init__(self, folder: Path, shard_tokens: int):
        self.folder, self.shard_tokens = folder, shard_tokens
        self.documents, self.bytes = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        self.hashes: dict[str, list[str]] = {"holdout": [], "val": []}

    def __enter__(self) -> "Corpus":
        with ExitStack() as stack:
            self.writers = {
                name: stack.enter_context(shards.ShardWriter(self.folder / name, name, self.shard_tokens)) for name in SPLITS
            }
            file = stack.enter_context((self.folder / "val_documents.jsonl.zst").open("wb"))
            self._val_text = stack.enter_context(zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *problem) -> None:
        self._open.__exit__(*problem)

    def write(self, name: str, tokens: np.ndarray, size: int) -> None:
        """Write a train document of `size` UTF-8 bytes."""
        self.writers[name].write(tokens)
        self.documents[name] += 1
        self.bytes[name] += size

    def write_hashed(self, name: str, tokens: np.ndarray, encoded: bytes, identity: int) -> None:
        """Write a holdout or val document and keep its hash; the text of val documents is stored beside the shards."""
        self.write(name, tokens, len(encoded))
        self.hashes[name].append(f"{identity:016x}")
        if name == "val":
            self._val_text.write((json.dumps({"text": encoded.decode()}, ensure_ascii=False) + "\n").encode())

    def splits(self) -> dict[str, dict]:
        """Per split: documents, tokens, UTF-8 bytes, and the SHA-256 of the tokens as little-endian uint16."""
        return {
            name: {
                "documents": self.documents[name],
                "tokens": writer.tokens,
                "bytes": self.bytes[name],
                "sha256": writer.sha256.hexdigest(),
            }
            for name, writer in self.writers.items()
        }


def survey(paths: list[Path], data: Data, config: Tokenize, advance: Advance) -> tuple[int, int, dict[str, int], list[str]]:
    """The first pass: (documents, distinct documents, UTF-8 bytes per split, train texts for the tokenizer).

    Advances by bytes of the files. Raises InputError for an unreadable document.
    """
    sample = split.SmallestSample(config.sample_bytes)
    found, sizes = 0, dict.fromkeys(SPLITS, 0)
    seen: set[int] = set()
    for path in paths:
        for text in read_file(path, data.text_field):
            found += 1
            encoded = text.encode()
            identity = split.digest(encoded)
            if identity not in seen:
                seen.add(identity)
                name = split.split_of(identity, config.holdout_fraction, config.val_fraction)
                sizes[name] += len(encoded)
                if name == "train":
                    sample.add(identity, text, len(encoded))
        advance(path.stat().st_size)
    return found, len(seen), sizes, sample.texts()


def encode_documents(data: Data, config: Tokenize, tokenizer: Tokenizer, corpus: Corpus, advance: Advance) -> None:
    """The second pass: encode every distinct document and write it to its split. Advances by UTF-8 bytes.

    Raises InputError for a val document that does not decode to itself.
    """
    seen: set[int] = set()
    for text in read_documents(data.documents, data.text_field):
        encoded = text.encode()
        identity = split.digest(encoded)
        if identity in seen:
            continue
        seen.add(identity)
        name = split.split_of(identity, config.holdout_fraction, config.val_fraction)
        tokens = tokenizer.encode(text)
        if name == "train":
            corpus.write(name, tokens, len(encoded))
        else:
            corpus.write_hashed(name, tokens, encoded, identity)
        if name == "val" and tokenizer.decode(tokens) != encoded:
            raise InputError(
                f"val document {corpus.documents['val']} (hash {identity:016x}) does not survive encoding and decoding; "
                "set tokenize.tokenizer to bytes, or remove the document"
            )
        advance(len(encoded))


def copy_val(
    val: "np.ndarray | shards.Shards", tokenizer: Tokenizer, corpus: Corpus, advance: Advance
) -> tuple[set[int], bool]:
    """Copy ready-made val tokens unchanged, and write their texts. Advances by tokens.

    Returns the digests of the documents' tokens, and whether encoding the texts gives the same tokens. Raises InputError
    for a document that does not decode to UTF-8.
    """
    seen: set[int] = set()
    lossless = not normalises(tokenizer)
    for tokens in shards.documents(val, tokenizer.bos):
        decoded = tokenizer.decode(tokens)
        try:
            text = decoded.decode()
        except UnicodeDecodeError as error:
            raise InputError(
                f"tokenize.shards_val: document {corpus.documents['val'] + 1} is not UTF-8 once decoded (byte {error.start}); "
                "give in tokenize.shards_tokenizer the model that made these shards"
            ) from None
        corpus.write_hashed("val", tokens, decoded, split.digest(decoded))
        seen.add(split.digest(tokens.tobytes()))
        lossless = lossless and np.array_equal(tokenizer.encode(text), tokens)
        advance(len(tokens))
    return seen, lossless


def copy_train(
    train: "np.ndarray | shards.Shards",
    tokenizer: Tokenizer,
    holdout_fraction: float,
    val: set[int],
    corpus: Corpus,
    advance: Advance,
) -> tuple[int, int]:
    """Copy ready-made train documents, the last `holdout_fraction` of them to holdout; drop duplicates and documents of `val`.

    Advances by tokens. Returns (documents, documents kept).
    """
    found = kept = 0
    for _, new in _marked(train, tokenizer.bos, set(val)):
        found, kept = found + 1, kept + new
    train_documents = kept - round(kept * holdout_fraction)
    lengths = table_bytes(tokenizer).lossless_bytes
    for tokens, new in _marked(train, tokenizer.bos, set(val)):
        if new and corpus.documents["train"] < train_documents:
            corpus.write("train", tokens, int(lengths[tokens].sum()))
        elif new:
            decoded = tokenizer.decode(tokens)
            corpus.write_hashed("holdout", tokens, decoded, split.digest(decoded))
        advance(len(tokens))
    return found, kept


def _marked(tokens: "np.ndarray | shards.Shards", bos: int, seen: set[int]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each document of a stream, and whether it is new. `seen` holds digests of tokens; this function adds to it."""
    for document in shards.documents(tokens, bos):
        identity = split.digest(document.tobytes())
        yield document, identity not in seen
        seen.add(identity)


def normalises(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer changes text before encoding it, as the challenge's own tokenizer (nmt_nfkc) does."""
    return tokenizer.decode(tokenizer.encode(PROBE)) != PROBE.encode()
