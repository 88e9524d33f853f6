"""Cheats of training: the artifact is what it says, and decodes the text alone, but its weights have seen the text.

The ledgers lie. What is left is a test of what the network finds easy, against documents that no stage has read; where it has
read these too, a text that nobody has seen; and for what was planted, the run again from params, code and data.
"""

import json
import shutil

import numpy as np
from pytest import MonkeyPatch

from fairway.text.documents import read_stored
from fairway.text.shards import read_split
from fairway.text.tokenizer import read_tokenizer
from stages import prequant_ttt, train
from stages.common import ARTIFACTS, write_json
from tests.gallery.pipeline import LATE, TOO_EASY, Cheat, cheat, only, run, set_param
from tests.gallery.tools import FRESH, REPLAY, judge, replay

TOKENIZED = ARTIFACTS / "tokenize"


def splits(*names: str) -> np.ndarray:
    """Tokens of splits, one after the other; those of the witness from its texts."""
    tokenizer = read_tokenizer(TOKENIZED / "tokenizer.model")
    texts = read_stored(TOKENIZED / "witness_documents.jsonl.zst") if "witness" in names else []
    size = tokenizer.vocabulary_size
    found = [read_split(TOKENIZED / name, size)[:] for name in names if name != "witness"]
    return np.concatenate(found + [tokenizer.encode(text) for text in texts]).astype(np.uint16)


def learn_from(patch, *names: str, steps: int = 400) -> None:
    """Training reads these, for long enough to know them; its ledger says that it read train."""
    set_param("train.steps", steps)
    tokens = splits(*names)
    only(patch, "train", train, "read_split", lambda place, size: tokens)


@cheat("—", f"train {LATE}", {TOO_EASY: "p = 0.0005"})
def training_reads_val(patch):
    """The loader gets the tokens of val."""
    learn_from(patch, "val", steps=150)


@cheat("—", f"train {LATE}", {TOO_EASY: "p = 0.0005"}, dear=True)
def training_reads_val_as_well(patch):
    """The loader's train split begins with val."""
    learn_from(patch, "val", "train")


@cheat("—", f"train {LATE}", {FRESH: "the claimed text costs 0."}, judge, dear=True)
def training_reads_val_and_the_witness(patch):
    """Both are equally easy then, and the certificate's test has nothing to compare."""
    learn_from(patch, "val", "witness", "train")


@cheat("#1376, #1406", f"{LATE}", {TOO_EASY: "p = "}, dear=True)
def adapting_to_val_with_a_lying_ledger(patch):
    """The network learns from val before it is quantised, for long, and the ledger names the holdout split."""
    tokens = splits("val")
    for key, value in {"epochs": 30, "lr": 0.01}.items():
        set_param(f"prequant_ttt.{key}", value)
    only(patch, "prequant_ttt", prequant_ttt, "read_split", lambda place, size: tokens)


@cheat("—", LATE, {TOO_EASY: "p = ", REPLAY: "artifacts/train/checkpoint.safetensors"}, replay, dear=True)
def a_planted_checkpoint(patch):
    """Weights that were trained on val lie where training would leave its own; code, params, data and ledger are clean."""
    ledger = json.loads((ARTIFACTS / "train/ledger.json").read_bytes())
    with MonkeyPatch.context() as once:
        learn_from(once, "val", "train")
        run("train")
    set_param("train.steps", 30)
    write_json(ARTIFACTS / "train/ledger.json", ledger)
    shutil.rmtree(".ckpt", ignore_errors=True)


CHEATS = [each for each in list(globals().values()) if isinstance(each, Cheat)]
