"""Clones of this repository in which DVC runs as users run it: code of the working tree, documents on the spot, tiny params.

`trunk` is a clone after its full run. It is made once for all files of tests, on all workers; each test file copies it.
`one_stage` is a repository of a single stage of two seconds that writes what `python -m fairway.report compare` reads.
"""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import warm
from filelock import FileLock
from pytest import TempPathFactory

from fairway.yaml_edit import edited
from tests import precompiled

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(__file__).with_name("bin")
ALL = "tokenize train prequant_ttt quant compress eval_sliding eval_ttt eval_ngram certify report".split()  # noqa: SIM905
LATE = ALL[ALL.index("eval_ngram") :]  # what follows a change of ngram.*
TINY = {
    "tokenize.vocabulary_size": 300,
    "tokenize.holdout_fraction": 0.2,
    "tokenize.val_fraction": 0.2,
    "model.layers": 2,
    "model.width": 32,
    "model.heads": 2,
    "model.kv_heads": 1,
    "model.xsa_layers": 1,
    "model.bigram_buckets": 64,
    "model.bigram_width": 8,
    "model.rope_dims": 8,
    "model.value_embedding_width": 8,
    "train.steps": 30,
    "train.tokens_per_step": 128,
    "train.sequence_length": 32,
    "train.compile": False,
    "train.precision": "fp32",
    "quant.calibration_tokens": 256,
    "eval.context": 32,
    "eval.block": 32,
    "ttt.chunk_tokens": 128,
    "certify.tokens": "all",
    "certify.causality_tokens": 300,
    "certify.causality_checks": 1,
}
OTHER = "ngram.learning_rate"  # what tests change after the full run
OLD, NEW = 0.004, 0.25
WORDS = "the people of our country have done great work in peace and in war with one hope".split()  # noqa: SIM905
IDENTITY = {f"GIT_{who}_{what}": "t@t" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
STAGE = """
import json, os, pathlib, sys, time, yaml
started, params = time.time(), yaml.safe_load(pathlib.Path("params.yaml").read_text())
if params["ngram"]["learning_rate"] < 0:
    sys.exit("error: ngram.learning_rate must be at least 0")
time.sleep(1)
more = [float(path.read_text()) for path in pathlib.Path().glob("bonus.txt")]
pathlib.Path("reports/report").mkdir(parents=True, exist_ok=True)
summary = {
    "val_bpb": params["ngram"]["learning_rate"] + params["train"]["seed"] / 1000 + sum(more),
    "legal": True,
    "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"),
    "span": [started, time.time()],
}
pathlib.Path("reports/summary.json").write_text(json.dumps(summary))
pathlib.Path("reports/report/stages.json").write_text(json.dumps({"tokenize": {"val_bytes": 3000, "val_tokens": 1001}}))
"""
PIPELINE = """
stages:
  eval_ngram:
    cmd: python stage.py
    params: [train, ngram]
    deps: [stage.py]
    outs:
      - reports/report: {cache: false}
    metrics:
      - reports/summary.json: {cache: false}
"""


def documents(count: int = 30) -> str:
    """Small documents, all different, as JSON lines."""
    texts = (" ".join(random.Random(i).choices(WORDS, k=59)) + f"\nNo. {i}" for i in range(1, count + 1))
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def set_param(folder: Path, key: str, value) -> None:
    path, (section, name) = folder / "params.yaml", key.split(".")
    path.write_bytes(edited(path.read_bytes(), {section: {name: value}}, str(path)))


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a program in the clone; `python` there is bin/python, which starts this test's own Python."""
    path = os.pathsep.join((str(BIN), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | IDENTITY | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    environment |= {"TEST_PYTHON": sys.executable, "TEST_SANDBOX": precompiled.__file__}
    environment |= {"TEST_WARM_PROGRAM": warm.__file__, "TEST_WARM": warm.started()}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def printed(folder: Path, *words: str) -> str:
    """What a program that succeeds prints."""
    finished = run(folder, *words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def stages_in(log: str) -> list[str]:
    """The stages that ran, in order."""
    return re.findall(r"Running stage '(\w+)'", log)


def reproduce(folder: Path, *words: str) -> list[str]:
    """The stages that `dvc repro` runs, in order."""
    return stages_in(printed(folder, "dvc", "repro", *words))


def commit(folder: Path, message: str) -> None:
    """Everything that is not ignored."""
    printed(folder, "git", "add", "-A")
    printed(folder, "git", "commit", "-qm", message)


def make(folder: Path) -> Path:
    """A repository of its own with one commit."""
    folder.mkdir()
    for name in ("fairway", "stages", ".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"):
        source = ROOT / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    (folder / "data").mkdir()
    (folder / "data/tiny.jsonl").write_text(documents(), encoding="utf-8")
    for key, value in {**TINY, "data.documents": ["data/*.jsonl"], OTHER: OLD}.items():
        set_param(folder, key, value)
    printed(folder, "git", "init", "-q", "-b", "main")
    commit(folder, "start")
    return folder


def trunk(factory: TempPathFactory) -> Path:
    """A clone after its full run, all of it committed. Not to be changed."""
    workers = "PYTEST_XDIST_WORKER" in os.environ  # of pytest-xdist have a folder each, side by side
    folder = (factory.getbasetemp().parent if workers else factory.getbasetemp()) / "trunk"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name("unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            make(unfinished)
            assert reproduce(unfinished) == ALL
            commit(unfinished, "the trunk")
            unfinished.rename(folder)
    return folder


def copy(source: Path, folder: Path) -> Path:
    """A repository with all that git ignores, DVC's cache among it."""
    return shutil.copytree(source, folder)


def one_stage(folder: Path) -> Path:
    """A repository of one stage, after its run, committed. Its score is ngram.learning_rate + train.seed / 1000 + bonus.txt."""
    params = "train:\n  seed: 1\nngram:\n  learning_rate: 1.25\n"
    contents = {"stage.py": STAGE, "dvc.yaml": PIPELINE, "params.yaml": params}
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    printed(folder, "git", "init", "-q", "-b", "main")
    printed(folder, "dvc", "init", "-q")
    assert reproduce(folder) == ["eval_ngram"]
    commit(folder, "base")
    return folder
