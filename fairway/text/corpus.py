"""From documents to the token shards of each split, in two passes; from ready-made shards, in one. The witness stays text.

Everything is streamed: memory holds an eight-byte hash per document, the tokenizer's sample, and one document. Each
function reports its progress through the argument `advance`.
"""

import hashlib
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

TOKENIZED = ("train", "holdout", "val")
STORED = ("val", "witness")  # splits whose documents are stored as text
SPLITS = (*TOKENIZED, "witness")
PROBE = "\ufb01 \uff21  e\u0301\t\r\n x "  # text that NFKC or a normalizer of white space changes
ZSTD_LEVEL = 19
Advance = Callable[[int], None]


def assigned(identity: int, config: Tokenize) -> split.Split:
    """The split of a document with this digest."""
    return split.split_of(identity, config.holdout_fraction, config.val_fraction, config.witness_fraction)


class Corpus:
    """The folder being written: shards, the texts of val and of the witness, and the counts and hashes of each split."""

    def __init__(self, folder: Path, shard_tokens: int):
        self.folder, self.shard_tokens = folder, shard_tokens
        self.documents, self.bytes = dict.fromkeys(SPLITS, 0), dict.fromkeys(SPLITS, 0)
        self.hashes: dict[str, list[str]] = {"holdout": [], "val": [], "witness": []}
        self.witness_sha256 = hashlib.sha256()  # of the texts, one NUL after each

    def __enter__(self) -> "Corpus":
        with ExitStack() as stack:
            self.writers = {
                name: stack.enter_context(shards.ShardWriter(self.folder / name, name, self.shard_tokens)) for name in TOKENIZED
            }
            self._texts = {}
            for name in STORED:
                file = stack.enter_context((self.folder / f"{name}_documents.jsonl.zst").open("wb"))
                self._texts[name] = stack.enter_context(zstandard.ZstdCompressor(level=ZSTD_LEVEL).stream_writer(file))
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
            self._store(name, encoded)

    def write_witness(self, encoded: bytes, identity: int) -> None:
        """Write a witness document as text, and keep its hash."""
        self.documents["witness"] += 1
        self.bytes["witness"] += len(encoded)
        self.hashes["witness"].append(f"{identity:016x}")
        self.witness_sha256.update(encoded + b"\0")
        self._store("witness", encoded)

    def _store(self, name: str, encoded: bytes) -> None:
        self._texts[name].write((json.dumps({"text": encoded.decode()}, ensure_ascii=False) + "\n").encode())

    def splits(self) -> dict[str, dict]:
        """Per split: documents, tokens, UTF-8 bytes, and the SHA-256 of the tokens as little-endian uint16.

        The witness has no tokens; its SHA-256 is that of its texts, with a NUL after each.
        """
        counts = {name: {"documents": self.documents[name], "bytes": self.bytes[name]} for name in SPLITS}
        hashed = {name: {"tokens": writer.tokens, "sha256": writer.sha256.hexdigest()} for name, writer in self.writers.items()}
        hashed["witness"] = {"sha256": self.witness_sha256.hexdigest()}
        return {name: counts[name] | hashed[name] for name in SPLITS}


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
                name = assigned(identity, config)
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
        name = assigned(identity, config)
        tokens = [] if name == "witness" else tokenizer.encode(text)
        if name == "witness":
            corpus.write_witness(encoded, identity)
        elif name == "train":
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
        decoded = _utf8(tokenizer.decode(tokens), f"tokenize.shards_val: document {corpus.documents['val'] + 1}")
        corpus.write_hashed("val", tokens, decoded, split.digest(decoded))
        seen.add(split.digest(tokens.tobytes()))
        lossless = lossless and np.array_equal(tokenizer.encode(decoded.decode()), tokens)
        advance(len(tokens))
    return seen, lossless


def copy_train(
    train: "np.ndarray | shards.Shards",
    tokenizer: Tokenizer,
    config: Tokenize,
    val: set[int],
    corpus: Corpus,
    advance: Advance,
) -> tuple[int, int]:
    """Copy ready-made train documents, the last `holdout_fraction` of them to holdout and the last `witness_fraction` before
    these to the witness; drop duplicates and documents of `val`.

    Advances by tokens. Returns (documents, documents kept). Raises InputError for a witness document that is not UTF-8.
    """
    found = kept = 0
    for _, new in _marked(train, tokenizer.bos, set(val)):
        found, kept = found + 1, kept + new
    holdout = kept - round(kept * config.holdout_fraction)  # the first document of holdout; the others begin earlier
    witness = holdout - round(kept * config.witness_fraction)
    lengths, index = table_bytes(tokenizer).lossless_bytes, 0
    for tokens, new in _marked(train, tokenizer.bos, set(val)):
        if new and index < witness:
            corpus.write("train", tokens, int(lengths[tokens].sum()))
        elif new and index < holdout:
            decoded = _utf8(tokenizer.decode(tokens), f"tokenize.shards_train: document {index + 1}")
            corpus.write_witness(decoded, split.digest(decoded))
        elif new:
            decoded = tokenizer.decode(tokens)
            corpus.write_hashed("holdout", tokens, decoded, split.digest(decoded))
        index += new
        advance(len(tokens))
    return found, kept


def _utf8(decoded: bytes, what: str) -> bytes:
    """The same bytes. Raises InputError if they are not UTF-8."""
    try:
        decoded.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{what} is not UTF-8 once decoded (byte {error.start}); "
            "give in tokenize.shards_tokenizer the model that made these shards"
        ) from None
    return decoded


def _marked(tokens: "np.ndarray | shards.Shards", bos: int, seen: set[int]) -> Iterator[tuple[np.ndarray, bool]]:
    """Each document of a stream, and whether it is new. `seen` holds digests of tokens; this function adds to it."""
    for document in shards.documents(tokens, bos):
        identity = split.digest(document.tobytes())
        yield document, identity not in seen
        seen.add(identity)


def normalises(tokenizer: Tokenizer) -> bool:
    """Whether the tokenizer changes text before encoding it, as the challenge's own tokenizer (nmt_nfkc) does."""
    return tokenizer.decode(tokenizer.encode(PROBE)) != PROBE.encode()
