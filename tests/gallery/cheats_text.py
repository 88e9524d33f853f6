"""Cheats of the text: val stands in what was learned from, in the vocabulary, or is another text than the data give."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from sentencepiece import SentencePieceTrainer

from fairway.text import corpus
from fairway.text.documents import read_stored
from fairway.text.split import digest
from fairway.text.tokenizer import Tokenizer, read_tokenizer
from stages import tokenize
from stages.common import ARTIFACTS
from tests.gallery.pipeline import (
    COPIED,
    DISJOINT,
    LATE,
    PIPELINE,
    TIED,
    TOO_EASY,
    VOCABULARY,
    Cheat,
    cheat,
    only,
    run,
    set_param,
)

TOKENIZED, DATA = ARTIFACTS / "tokenize", Path("data/documents.jsonl")
VAL, WITNESS = (TOKENIZED / f"{name}_documents.jsonl.zst" for name in ("val", "witness"))


def add_to_train(patch, respell: Callable[[Tokenizer, str], np.ndarray]) -> None:
    """While tokenize writes, every document of val goes to train too, in other tokens."""
    write_hashed = corpus.Corpus.write_hashed
    tokenizer = read_tokenizer(TOKENIZED / "tokenizer.model")

    def write_twice(self, name, tokens, encoded, identity):
        write_hashed(self, name, tokens, encoded, identity)
        if name == "val":
            self.writers["train"].write(respell(tokenizer, encoded.decode()))

    only(patch, "tokenize", corpus.Corpus, "write_hashed", write_twice)


@cheat("—", "tokenize train certify", {COPIED: "100.00 % of val is copied", TIED: "train has"})
def near_duplicates_of_val_in_train(patch):
    """Each document of val stands in train with one more space, so that no hash of it is the same."""
    add_to_train(patch, lambda tokenizer, text: tokenizer.encode(text + " "))


@cheat("—", "tokenize train certify", {DISJOINT: "in val and train", COPIED: "100.00 % of val is copied", TIED: "train has"})
def val_in_train_in_other_tokens(patch):
    """The same text, whose last token is spelled in bytes: other tokens, other hashes of tokens."""

    def respell(tokenizer: Tokenizer, text: str) -> np.ndarray:
        tokens = tokenizer.encode(text)
        bytes_by_value = {tokenizer.pieces[index]: index for index in np.flatnonzero(tokenizer.is_byte)}
        last = [bytes_by_value[bytes([byte])] for byte in tokenizer.pieces[tokens[-1]]]
        return np.concatenate((tokens[:-1], np.array(last, np.uint16)))

    add_to_train(patch, respell)


@cheat("—", PIPELINE, {COPIED: "of val is copied"}, dear=True)
def near_duplicates_in_the_data(patch):
    """Whoever has the choice of documents chooses some that are nearly those of val."""
    set_param("certify.val_documents", 0)
    copies = [json.dumps({"text": text.replace(" ", "  ", 1)}) + "\n" for text in read_stored(VAL)]
    DATA.write_text(DATA.read_text(encoding="utf-8") + "".join(copies), encoding="utf-8")


@cheat("—", f"train {LATE}", {TIED: "val has", TOO_EASY: "p = 0.0005"}, dear=True)
def an_easy_val(patch):
    """tokenize reads other documents than lie in data/ afterward: those of val are a few words again and again."""
    given, val = DATA.read_text(encoding="utf-8"), set(read_stored(VAL))
    lines = [line for line in given.splitlines() if json.loads(line)["text"] not in val]
    number = 0
    while len(lines) < len(given.splitlines()):
        text = "the people of our country " * 8 + f"No. {(number := number + 1)}"
        lines += [json.dumps({"text": text})] * (digest(text.encode()) < 0.2 * 2**64)
    DATA.write_text("\n".join(lines), encoding="utf-8")
    run("tokenize")
    DATA.write_text(given, encoding="utf-8")


@cheat("—", PIPELINE, {VOCABULARY: "long pieces stand in val and never in train"}, dear=True)
def pieces_of_val_in_the_vocabulary(patch):
    """Long pieces of val are symbols that the user defined."""
    symbols = [text.split(".\n")[0][-40:].replace(" ", "▁") for text in read_stored(VAL)[:4]]
    train = SentencePieceTrainer.Train
    defining = staticmethod(lambda **options: train(**options | {"user_defined_symbols": symbols}))
    only(patch, "tokenize", SentencePieceTrainer, "Train", defining)


@cheat("—", PIPELINE, {VOCABULARY: "is not the one that train gives"}, dear=True)
def a_vocabulary_learned_from_val(patch):
    """Merges are learned from val, several times over, and from train."""
    train, val = tokenize.train_bpe, 20 * read_stored(VAL)
    only(patch, "tokenize", tokenize, "train_bpe", lambda texts, *rest: train([*val, *texts], *rest))


@cheat("—", "certify", {DISJOINT: "documents in val and witness", TIED: "witness has"})
def a_witness_that_is_val(patch):
    """What val is compared with is val."""
    shutil.copy(VAL, WITNESS)


@cheat("—", "certify", {TIED: "train has", VOCABULARY: "is not the one that train gives"})
def data_changed_afterward(patch):
    """Documents that were trained on are no longer in data/."""
    lines = DATA.read_text(encoding="utf-8").splitlines(keepends=True)
    trained = [line for line in lines if 0.4 * 2**64 < digest(json.loads(line)["text"].encode()) < 0.8 * 2**64]
    DATA.write_text("".join(line for line in lines if line not in trained[:5]), encoding="utf-8")


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
