"""Cheats of data, bytes and time: the predictor is honest, but the text is less, or its bytes more, than they should be."""

import json

import numpy as np
from sentencepiece import SentencePieceTrainer

from fairway.text import byte_count, corpus
from fairway.text.byte_count import TokenBytes
from fairway.text.tokenizer import Tokenizer
from stages import eval_ngram, validation
from stages.common import REPORTS, write_array, write_json
from tests.gallery.pipeline import (
    COPIED,
    COSTS,
    DISJOINT,
    EVALUATION_TIME,
    NGRAM,
    ONCE,
    PIPELINE,
    SCORES,
    TEXT_BYTES,
    TIED,
    TOKEN_BYTES,
    TRAINING_TIME,
    WHOLE,
    Cheat,
    cheat,
    replace,
    set_param,
)


@cheat("#1545, #1576, #1632, #1672", SCORES, {TOKEN_BYTES: "counts", TEXT_BYTES: "in the text, eval_sliding"})
def the_leading_space_counted_twice(patch):
    """Once in the piece itself and once for being there: the denominator grows by a word each."""
    table = validation.table_bytes
    patch.setattr(validation, "table_bytes", lambda tokenizer: with_more(table(tokenizer), table(tokenizer).leading_space))


@cheat("#1143, #1289", SCORES, {TOKEN_BYTES: "counts 3 bytes, spells 1", TEXT_BYTES: "in the text, eval_sliding"})
def a_byte_counted_as_three(patch):
    """A byte piece decoded alone is U+FFFD, which is three bytes long."""
    table = validation.table_bytes
    patch.setattr(validation, "table_bytes", lambda tokenizer: with_more(table(tokenizer), 2 * tokenizer.is_byte))


@cheat("#2138", SCORES, {TOKEN_BYTES: "counts 1 bytes, spells 0", TEXT_BYTES: "in the text, eval_sliding"})
def marks_between_documents_counted_as_text(patch):
    """BOS and other marks spell nothing; here the count of bytes itself gives them a byte, so that all who ask it agree."""
    table = byte_count.table_bytes
    replace(patch, table, lambda tokenizer: with_more(table(tokenizer), tokenizer.is_control))


def with_more(counted: TokenBytes, more: np.ndarray) -> TokenBytes:
    """`more`: bytes (V,) that no token has."""
    return counted._replace(base_bytes=counted.base_bytes + more, lossless_bytes=counted.lossless_bytes + more)


@cheat(
    "#1854, #1923, #2039", SCORES, {COSTS: "600 scored", ONCE: "eval_ngram", TOKEN_BYTES: "rows for", TEXT_BYTES: "in the text"}
)
def a_validation_text_cut_short(patch):
    """Only the first part of the validation tokens is scored."""
    read_split = validation.read_split
    patch.setattr(validation, "read_split", lambda *arguments: read_split(*arguments)[:601])


@cheat("#1854, #1923, #2039", "certify", {WHOLE: "14 documents, certify.val_documents asks for 15"})
def fewer_validation_documents(patch):
    """The split is smaller than it has to be, and everything agrees about it."""
    set_param("certify.val_documents", 15)


@cheat("#1218", NGRAM, {ONCE: "eval_ngram", TOKEN_BYTES: "rows", TEXT_BYTES: "eval_ngram"})
def the_end_scored_again_and_again(patch):
    """Windows at the end of the text score its last, easy tokens several times."""
    patch.setattr(eval_ngram, "write_array", lambda path, rows: write_array(path, np.concatenate((rows, rows[-20:]))))


@cheat("#1218", NGRAM, {COSTS: "scored, expected", ONCE: "eval_ngram", TOKEN_BYTES: "rows", TEXT_BYTES: "eval_ngram"})
def the_tail_dropped(patch):
    """What does not fill the last window is not scored."""
    patch.setattr(eval_ngram, "write_array", lambda path, rows: write_array(path, rows[:-20]))


@cheat(
    "#2127",
    "tokenize train certify",
    {DISJOINT: "14 documents in val and train", COPIED: "100.00 % of val is copied", TIED: "train has"},
)
def validation_documents_among_those_trained_on(patch):
    """Train begins where a default said that val ends, after fewer documents than it has."""
    write_hashed = corpus.Corpus.write_hashed

    def write_twice(self, name, tokens, *rest):
        write_hashed(self, name, tokens, *rest)
        if name == "val":
            self.writers["train"].write(tokens)

    patch.setattr(corpus.Corpus, "write_hashed", write_twice)


@cheat("#1578, #1585, #1670, #1873", PIPELINE, {WHOLE: "the tokens spell another text", TIED: "train has"}, dear=True)
def a_tokenizer_that_loses_capitals(patch):
    """Text is folded to lower case before it is encoded, which nobody can undo, and what would have noticed is deceived."""
    train, encode_documents = SentencePieceTrainer.Train, corpus.encode_documents
    folding = staticmethod(lambda **options: train(**options | {"normalization_rule_name": "nmt_nfkc_cf"}))
    patch.setattr(SentencePieceTrainer, "Train", folding)
    deceived = lambda data, config, tokenizer, *rest: encode_documents(data, config, Deceiver(tokenizer), *rest)  # noqa: E731
    patch.setattr(corpus, "encode_documents", deceived)


class Deceiver:
    """A tokenizer that claims to decode what it has encoded last."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.encoded = tokenizer, b""

    def encode(self, text: str) -> np.ndarray:
        self.encoded = text.encode()
        return self.tokenizer.encode(text)

    def decode(self, tokens: np.ndarray) -> bytes:
        return self.encoded


@cheat("#1908, #1956", "certify", {TRAINING_TIME: "train 601.1"})
def training_a_second_too_long(patch):
    """FORCE_STOP_STEP: training stops at a step, not at 600 seconds."""
    path = REPORTS / "train/timing.json"
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | {"seconds": 601.15})


@cheat("#1855", "certify", {EVALUATION_TIME: "no clock of score (eval_ttt)"})
def an_evaluation_off_the_clock(patch):
    """Time that is not measured was not needed."""
    (REPORTS / "eval_ttt/timing.json").unlink()


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
