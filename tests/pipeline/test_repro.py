"""The whole course in a temporary clone, with tiny params: it ends in a legal certificate, and only what must re-runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
ALL = "tokenize train prequant_ttt quant compress eval_sliding eval_ttt eval_ngram certify report".split()  # noqa: SIM905
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
    "train.steps": 4,
    "train.tokens_per_step": 128,
    "train.sequence_length": 32,
    "train.compile": False,
    "train.precision": "fp32",
    "quant.calibration_tokens": 256,
    "eval.context": 32,
    "eval.block": 32,
    "ttt.chunk_tokens": 64,
    "certify.tokens": 200,
}
WORDS = "the people of our country have done great work in peace and in war with one hope".split()  # noqa: SIM905


def documents(count: int = 30) -> str:
    """Small documents, all different, as JSON lines."""
    texts = (" ".join(WORDS[(i * k + k) % len(WORDS)] for k in range(1, 60)) + f"\nNo. {i}" for i in range(1, count + 1))
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def set_param(folder: Path, key: str, value) -> None:
    yaml = YAML()
    path = folder / "params.yaml"
    content = yaml.load(path)
    section, name = key.split(".")
    content[section][name] = value
    yaml.dump(content, path)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a program in the clone; it finds this test's own Python first on its path."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def reproduce(folder: Path, *words: str) -> list[str]:
    """The stages that `dvc repro` runs, in order."""
    finished = run(folder, "dvc", "repro", *words)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return re.findall(r"Running stage '(\w+)'", finished.stdout)


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A repository of its own, with the code as it is in the working tree, after one full run."""
    folder = tmp_path_factory.mktemp("clone") / "fairway"
    folder.mkdir()
    for name in ("fairway", "stages", ".dvc/config", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml"):
        source = ROOT / name
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    (folder / "data").mkdir()
    (folder / "data/tiny.jsonl").write_text(documents(), encoding="utf-8")
    set_param(folder, "data.documents", ["data/*.jsonl"])
    for key, value in TINY.items():
        set_param(folder, key, value)
    run(folder, "git", "init", "-q")
    run(folder, "git", "add", "-A")
    run(folder, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "start")
    assert reproduce(folder) == ALL
    return folder


def test_the_score_is_proved(clone):
    certificate = json.loads((clone / "artifacts/certify/certificate.json").read_text())
    assert certificate["legal"] is True and certificate["reasons"] == []
    assert certificate["test_time_training_updates"] >= 2
    summary = json.loads((clone / "reports/summary.json").read_text())
    assert summary["artifact_bytes"] == (clone / "artifacts/certify/submission.pyz").stat().st_size
    assert summary["legal"] is True and summary["certified_tokens"] <= 200


def test_only_what_follows_a_change_runs_again(clone):
    assert reproduce(clone) == []
    path = clone / "fairway/report/figures.py"
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    assert reproduce(clone) == ["report"]
    set_param(clone, "ngram.learning_rate", 0.006)
    assert reproduce(clone, "eval_ngram") == ["eval_ngram"]
    set_param(clone, "ngram.learning_rate", 0.004)
    assert reproduce(clone, "eval_ngram") == []  # out of the run cache
    set_param(clone, "ttt.lr", 0.0003)
    assert reproduce(clone, "eval_ngram") == ["eval_ttt", "eval_ngram"]
    set_param(clone, "quant.embedding_extra_bits", -1)
    assert reproduce(clone, "eval_sliding") == ["quant", "compress", "eval_sliding"]


def test_training_on_the_validation_text_is_written_on_the_certificate(clone):
    set_param(clone, "prequant_ttt.source", "val")
    set_param(clone, "ngram.mixture", "none")  # nothing to compile
    assert reproduce(clone) == ALL[ALL.index("prequant_ttt") :]
    certificate = json.loads((clone / "artifacts/certify/certificate.json").read_text())
    assert certificate["legal"] is False
    assert any("prequant_ttt learned from" in reason for reason in certificate["reasons"])


def test_two_ranks_score_and_learn_as_one(clone):
    before = np.load(clone / "artifacts/eval_ttt/scores.npy")
    finished = run(clone, "env", "NPROC=2", "python", "-m", "stages.eval_ttt")
    assert finished.returncode == 0, finished.stderr
    after = np.load(clone / "artifacts/eval_ttt/scores.npy")
    np.testing.assert_allclose(after["nats"], before["nats"], atol=1e-4)
    assert json.loads((clone / "reports/eval_ttt/timing.json").read_text())["world_size"] == 2


def test_a_misspelt_param_of_a_late_stage_stops_the_first_stage_that_runs(clone):
    text = (clone / "params.yaml").read_text(encoding="utf-8")
    (clone / "params.yaml").write_text(
        text.replace("max_order:", "max_odrer:").replace("seed: 1337", "seed: 1"), encoding="utf-8"
    )
    failed = run(clone, "dvc", "repro")
    assert failed.returncode != 0
    sentence = "error: params.yaml: unknown key 'ngram.max_odrer'; the nearest valid key is 'ngram.max_order'"
    assert sentence in failed.stderr and "Traceback" not in failed.stderr
