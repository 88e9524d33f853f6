"""The tiny pipeline of the cheats' gallery, and what a cheat does to it: from an injection to the certificate that judges it.

Everything runs through the real stages, in this process, and the submission in processes of its own in the real sandbox;
nothing of the certificate's is replaced. Three things keep it short. A round trip is remembered by its arguments: the same
submission and the same text end alike, so a cheat that leaves both as they are is not coded again. The submission is packed
as the code is written, and its machine code is kept (tests/precompiled.py). And where a cheat has it packed again, test-time
training is off: it is most of what a process takes to start.
"""

import functools
import importlib
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from pytest import MonkeyPatch

from fairway.params import read_yaml
from fairway.proof import round_trip
from fairway.submission import packing
from tests import precompiled
from tests.gallery import submission, tools
from tests.gallery.text import documents

ROOT = Path(__file__).resolve().parents[2]
NGRAM = "eval_ngram certify"  # stages that run again
TTT = f"eval_ttt {NGRAM}"
SCORES = f"eval_sliding {TTT}"
PACK = f"compress {TTT}"
LATE = f"prequant_ttt quant compress {SCORES}"
PIPELINE = f"tokenize train {LATE}"
TINY = {
    "data": {"documents": ["data/*.jsonl"]},
    "tokenize": {"vocabulary_size": 300, "holdout_fraction": 0.2, "val_fraction": 0.2, "witness_fraction": 0.2},
    "model": {"layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "xsa_layers": 1, "rope_dims": 8}
    | {"bigram_buckets": 64, "bigram_width": 8, "value_embedding_layers": [], "mlp_multiple": 1.0},
    "train": {"steps": 30, "tokens_per_step": 256, "sequence_length": 32, "compile": False, "precision": "fp32"},
    "quant": {"calibration_tokens": 256, "trellis": 0, "allocation": "uniform"},
    "compress": {"coder": "lzma"},  # of all coders the one that nothing has to be compiled for
    "eval": {"context": 32, "block": 32},
    "ttt": {"chunk_tokens": 64, "optimizer": "sgd", "lr": 0.3},
    "cache": {"tokens": 0},
    "ngram": {"mixture": "tilt", "tilt": 4.0, "learning_rate": 0.05},
    "certify": {"tokens": "all", "causality_tokens": 500, "causality_checks": 4}
    | {"val_documents": 14, "train_seconds": 600, "eval_seconds": 600},
}

# What the certificate calls its claims.
RETURNS = "the text comes back, bit for bit"
ALONE = "it reads nothing but its artifact"
COSTS = "the reported score is what the text costs"
SUMS = "every prediction is a distribution"
CAUSAL = "no score depends on a later token"
ONE_PASS = "the reported scores are those of one pass"
PROBABILITIES = "every score is that of a probability"
SCORE_FIRST = "score before update"
ONCE = "each token is scored exactly once"
WHOLE = "the validation set is whole"
TOKEN_BYTES = "every token counts its bytes"
TEXT_BYTES = "the bytes are those of the text"
DISJOINT = "train, holdout and val share no document"
COPIED = "val is not copied from train or holdout"
TIED = "the splits are those of the data"
VOCABULARY = "the vocabulary knows train alone"
BUDGET = "the artifact is within its budget"
TRAINING_TIME = "training keeps to its time"
EVALUATION_TIME = "evaluation keeps to its time"
TOO_EASY = "val costs the artifact what documents cost that no stage has read"


class Cheat(NamedTuple):
    """A cheat, or a bug that looks like one."""

    name: str
    source: str  # pull requests and issues of the challenge where it was seen
    story: str
    inject: Callable[[MonkeyPatch], None]  # called in the folder of a pipeline that has been run
    stages: str  # that run again, in order
    refused: dict[str, str]  # claims that must fail, all of them, and what the tool must say, each with a part of its result
    tool: Callable[[Path], dict[str, str]]  # of tools.py: what is asked beside the certificate
    dear: bool  # seconds: left to `python -m bench.gallery` and `make test-slow`


def cheat(
    source: str, stages: str, refused: dict[str, str], tool: Callable = lambda honest: {}, dear: bool = False
) -> Callable[[Callable], Cheat]:
    """A function of a MonkeyPatch as a Cheat: its name in words, its docstring the story."""
    return lambda inject: Cheat(inject.__name__.replace("_", " "), source, inject.__doc__, inject, stages, refused, tool, dear)


@contextmanager
def honest_pipeline(folder: Path):
    """The whole pipeline in a folder, and its certificate; cheats may be judged as long as the block lasts."""
    threads = torch.get_num_threads()
    with MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("NPROC", "1")
        patch.setattr(round_trip, "run", functools.cache(round_trip.run))
        patch.setattr(packing, "minified", lambda sources, whole: sources)  # seconds
        precompiled.install(patch.setattr)
        shutil.copy(ROOT / "params.yaml", folder)
        for section, values in TINY.items():
            for key, value in values.items():
                set_param(f"{section}.{key}", value)
        try:
            yield honest_run(0)
        finally:
            torch.set_num_threads(threads)


def honest_run(seed: int) -> dict:
    """The certificate of the whole pipeline, in the current folder, of documents and weights of a seed; with its report."""
    shutil.rmtree("data", ignore_errors=True)
    Path("data").mkdir()
    Path("data/documents.jsonl").write_text(documents(seed=seed), encoding="utf-8")
    if seed:
        set_param("train.seed", seed)
        set_param("certify.val_documents", 0)
    run(PIPELINE.removesuffix(" certify"))
    tools.lock()
    run("certify report")
    tools.lock()
    return tools.certificate()


def judged(cheat: Cheat, honest: Path, folder: Path) -> tuple[dict, dict[str, str]]:
    """The certificate of a pipeline that was honest until the cheat came by, and what fails: claims, and the tool's answer."""
    for name in ("artifacts", "reports", "data"):
        shutil.copytree(honest / name, folder / name)
    for name in ("params.yaml", "dvc.yaml", "dvc.lock"):
        shutil.copy(honest / name, folder)
    with MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if "compress" in cheat.stages and cheat.tool is not tools.replay:  # which compares with the honest params
            set_param("ttt.optimizer", "none")
        cheat.inject(patch)
        run(cheat.stages)
        return tools.certificate(), failing(tools.certificate()) | cheat.tool(honest)


def run(stages: str) -> None:
    """Run stages here, in order."""
    for name in stages.split():
        importlib.import_module(f"stages.{name}").main()


def failing(certificate: dict) -> dict[str, str]:
    """The claims that do not hold, and why."""
    return {claim["claim"]: claim["result"] for claim in certificate["claims"] if not claim["passed"]}


def for_its_own_reasons(cheat: Cheat, found: dict[str, str]) -> bool:
    """Whether just the claims fail that must, each with the words that it must, and the tool says what it must."""
    return found.keys() == cheat.refused.keys() and all(words in found[claim] for claim, words in cheat.refused.items())


def set_param(key: str, value: object) -> None:
    """In params.yaml."""
    content, (section, name) = read_yaml(Path("params.yaml")), key.split(".")
    assert name in content[section]
    content[section][name] = value
    Path("params.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def replace(patch: MonkeyPatch, function: Callable, other: Callable) -> None:
    """Whoever has imported a function of fairway or stages gets the other one."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] in ("fairway", "stages") and vars(module).get(function.__name__) is function:
            patch.setattr(module, function.__name__, other)


def only(patch: MonkeyPatch, stage: str, target: object, name: str, value: object) -> None:
    """A stage, and no other, runs with something replaced: as the cheat has it, and the certificate has not."""
    module = importlib.import_module(f"stages.{stage}")
    main = module.main

    def cheating() -> None:
        with MonkeyPatch.context() as inner:
            inner.setattr(target, name, value)
            main()

    patch.setattr(module, "main", cheating)


def submit(patch: MonkeyPatch, name: str, *arguments: str) -> None:
    """Have compress pack a submission that calls a function of submission.py before it does its work."""
    build = packing.build

    def build_cheating(modules: list[str], members: dict[str, bytes], root: Path) -> bytes:
        cheats = json.loads(members.get(submission.CHEATS, b"{}")) | {name: arguments}
        return build([submission.__name__, *modules], members | {submission.CHEATS: json.dumps(cheats).encode()}, root)

    patch.setattr(packing, "build", build_cheating)
