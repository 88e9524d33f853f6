"""Turn documents (or ready-made challenge shards) into a tokenizer, token shards for train, holdout and val, the texts of the
witness, and a manifest.

The tokenizer is trained on train text only; every val document is decoded again and compared. The output folder is built
under a temporary name and renamed when complete, so a killed run leaves no partial output.
"""

import hashlib
import time
from contextlib import contextmanager
from pathlib import Path

from fairway import params
from fairway.errors import InputError
from fairway.files import replacing_folder
from fairway.text import corpus, documents, shards
from fairway.text.byte_count import count_bytes, table_bytes
from fairway.text.config import Data, Tokenize
from fairway.text.corpus import Corpus
from fairway.text.tokenizer import BYTE_MODEL, Tokenizer, read_tokenizer, train_bpe
from stages import common


def main() -> None:
    start = time.monotonic()
    data = params.load(common.PARAMS, "data", Data)
    config = params.load(common.PARAMS, "tokenize", Tokenize)
    with replacing_folder(common.ARTIFACTS / "tokenize") as aside:
        manifest = from_documents(data, config, aside) if config.source == "documents" else from_shards(config, aside)
        common.write_json(aside / "manifest.json", manifest)
    report(manifest, time.monotonic() - start)


def from_documents(data: Data, config: Tokenize, folder: Path) -> dict:
    """Read the documents twice: split them, then encode them. Returns the manifest."""
    paths = documents.find_files(data.documents, "data.documents")
    with progress(sum(path.stat().st_size for path in paths), "B", "split") as advance:
        found, kept, sizes, sample = corpus.survey(paths, data, config, advance)
    refuse_empty(sizes, f"{kept} different documents in data.documents")
    model = BYTE_MODEL if config.tokenizer == "bytes" else train_bpe(sample, config.vocabulary_size, config.sample_bytes)
    tokenizer = Tokenizer.from_bytes(model)
    with Corpus(folder, config.shard_tokens) as out, progress(sum(sizes.values()), "B", "encode") as advance:
        corpus.encode_documents(data, config, tokenizer, out, advance)
    if out.bytes != sizes or sum(out.documents.values()) != kept:
        raise InputError("data.documents: the files changed while they were read; run the stage again")
    common.write_bytes(folder / "tokenizer.model", model)
    return describe(config, folder, tokenizer, out, duplicates=found - kept, lossless=True)


def from_shards(config: Tokenize, folder: Path) -> dict:
    """Copy val unchanged, cut holdout and the witness off the end of train, remove duplicates. Returns the manifest."""
    model, tokenizer = given_tokenizer(config)
    train, val = (
        shards.read_shards(documents.find_files(globs, key), tokenizer.vocabulary_size)
        for globs, key in ((config.shards_train, "tokenize.shards_train"), (config.shards_val, "tokenize.shards_val"))
    )
    with Corpus(folder, config.shard_tokens) as out:
        with progress(len(val), "tokens", "val") as advance:
            seen, lossless = corpus.copy_val(val, tokenizer, out, advance)
        with progress(len(train), "tokens", "train") as advance:
            found, kept = corpus.copy_train(train, tokenizer, config, seen, out, advance)
    refuse_empty(out.documents, f"{kept} different documents in tokenize.shards_train")
    common.write_bytes(folder / "tokenizer.model", model)
    return describe(config, folder, tokenizer, out, duplicates=found - kept, lossless=lossless)


def given_tokenizer(config: Tokenize) -> tuple[bytes, Tokenizer]:
    """The model of ready-made shards, and the tokenizer that it describes."""
    if config.tokenizer == "bytes":
        return BYTE_MODEL, Tokenizer.from_bytes(BYTE_MODEL)
    path, *_ = documents.find_files([config.shards_tokenizer], "tokenize.shards_tokenizer")
    tokenizer = read_tokenizer(path, "give in tokenize.shards_tokenizer the .model file that made the shards")
    return path.read_bytes(), tokenizer


@contextmanager
def progress(total: int, unit: str, label: str):
    """Show progress; the block receives the function that advances it."""
    display = common.Progress(total, unit, label)
    yield display.advance
    display.close()


def refuse_empty(sizes: dict[str, int], given: str) -> None:
    """Raise InputError for a split without documents; the witness may be empty, and the certificate says so."""
    for name in corpus.TOKENIZED:
        if not sizes[name]:
            raise InputError(
                f"the {name} split is empty: {given} are too few for these fractions; "
                "give more documents, or change tokenize.holdout_fraction and tokenize.val_fraction"
            )


def describe(config: Tokenize, folder: Path, tokenizer: Tokenizer, out: Corpus, duplicates: int, lossless: bool) -> dict:
    """The manifest. `table_bytes`: the two byte counts of fairway.text.byte_count on val; a NUL counts in neither."""
    if sum(map(len, map(set, out.hashes.values()))) != len(set().union(*out.hashes.values())):
        raise InputError("tokenize: a document is in holdout and in val; remove it from one of them")
    val = shards.read_split(folder / "val", tokenizer.vocabulary_size)
    challenge, lossless_bytes = count_bytes(val, table_bytes(tokenizer))
    return {
        "source": config.source,
        "tokenizer": {
            "kind": config.tokenizer,
            "vocabulary_size": tokenizer.vocabulary_size,
            "bos": tokenizer.bos,
            "sha256": hashlib.sha256((folder / "tokenizer.model").read_bytes()).hexdigest(),
            "normalises": corpus.normalises(tokenizer),
        },
        "lossless": lossless,
        "duplicates": duplicates,
        "splits": out.splits(),
        "table_bytes": {"challenge": challenge, "lossless": lossless_bytes},
        "document_hashes": out.hashes,
    }


def report(manifest: dict, seconds: float) -> None:
    train, holdout, val, witness = (manifest["splits"][name] for name in corpus.SPLITS)
    metrics = {
        "vocabulary_size": manifest["tokenizer"]["vocabulary_size"],
        "train_tokens": train["tokens"],
        "holdout_tokens": holdout["tokens"],
        "val_tokens": val["tokens"],
        "val_bytes": val["bytes"],
        "val_documents": val["documents"],
        "witness_documents": witness["documents"],
        "witness_bytes": witness["bytes"],
        "duplicates": manifest["duplicates"],
        "bytes_per_token": round(val["bytes"] / val["tokens"], 4),
    }
    common.write_json(common.REPORTS / "tokenize" / "metrics.json", metrics)
    common.write_json(common.REPORTS / "tokenize" / "timing.json", {"seconds": round(seconds, 2)})
    print(", ".join(f"{key} {value:,}" for key, value in metrics.items()) + f", {seconds:.1f} s")


if __name__ == "__main__":
    common.run(main)
