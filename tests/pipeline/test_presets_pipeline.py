"""Every preset goes the whole pipeline at a tiny scale, in this process: it ends in a legal certificate of its own network."""

import dataclasses
import functools
import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from clones import documents

from fairway import presets
from fairway.lm import checkpoint
from fairway.lm.model import GPT
from fairway.params import read_yaml
from fairway.submission import packing
from tests import precompiled

ROOT = Path(__file__).resolve().parents[2]
PRESETS = [name for name, path in presets.overlays().items() if presets.is_preset(path)]
PIPELINE = "train prequant_ttt quant compress eval_sliding eval_ttt eval_ngram certify".split()  # noqa: SIM905
TINY = """
data:
  documents: [data/*.jsonl]
tokenize:
  vocabulary_size: 300
  holdout_fraction: 0.2
  val_fraction: 0.2
model:
  layers: 6  # recurrent layers 4 and 5 are among them
  width: 64  # feed-forward matrices are large enough for a grid
  heads: 2
  kv_heads: 1
  rope_dims: 16
  value_embedding_width: 8
  bigram_width: 8
train:
  steps: 24  # of which the last ones are below every qat.start
  tokens_per_step: 128
  tokens_per_pass: 64
  sequence_length: 32
  compile: false
  precision: fp32
prequant_ttt:
  sequences_per_step: 4
quant:
  calibration_tokens: 256
eval:
  context: 32
  block: 32
ttt:
  chunk_tokens: 128
  sequences_per_step: 2
certify:
  causality_tokens: 300  # two updates
  causality_checks: 1
  val_documents: 0
"""


def metrics(stage: str) -> dict:
    return json.loads(Path(f"reports/{stage}/metrics.json").read_text())


@pytest.fixture(scope="module")
def tokenised(tmp_path_factory) -> Path:
    """A folder with a tiny corpus, tokenised, and the shipped params at the tiny scale; tokens are the same for all presets."""
    folder = tmp_path_factory.mktemp("pipeline")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data/tiny.jsonl").write_text(documents(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        presets.merge(Path("params.yaml"), [Path("tiny.yaml")])
        importlib.import_module("stages.tokenize").main()
    return folder


@pytest.fixture(scope="module", autouse=True)
def packed_once() -> Iterator[None]:
    """The code of a submission is the same for all presets."""
    stream = packing.code_stream
    once = functools.cache(lambda modules, root: stream(list(modules), root))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "code_stream", lambda modules, root: once(tuple(modules), root))
        precompiled.install(patch.setattr)
        yield


@pytest.mark.parametrize("name", PRESETS)
def test_the_whole_pipeline(name, tokenised, tmp_path, monkeypatch):
    shutil.copytree(tokenised, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    presets.merge(Path("params.yaml"), [presets.find(name), Path("tiny.yaml")])
    for stage in PIPELINE:
        importlib.import_module(f"stages.{stage}").main()

    certificate = json.loads(Path("artifacts/certify/certificate.json").read_text())
    assert certificate["reasons"] == [] and certificate["legal"] is True
    params, preset, tiny = read_yaml("params.yaml"), presets.content(presets.find(name)), read_yaml("tiny.yaml")
    trains = params["ttt"]["optimizer"] != "none"
    assert (certificate["test_time_training_updates"] >= 2) == trains
    assert metrics("prequant_ttt")["prequant_source"] == preset["prequant_ttt"]["source"]

    architecture = checkpoint.load("artifacts/train/checkpoint.safetensors")[0]
    assert dataclasses.asdict(architecture).items() >= (preset["model"] | tiny["model"]).items()
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in GPT(architecture).parameters())
    assert metrics("train")["parameters"] == metrics("compress")["parameters"] == parameters
    assert metrics("train")["train_steps"] == 24
