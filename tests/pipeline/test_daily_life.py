"""Runs and experiments of the real DVC, of one cheap stage that writes what the pipeline writes, are found and compared."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fairway.report import compare, revisions

STAGE = """
import json, pathlib, yaml
params = yaml.safe_load(pathlib.Path("params.yaml").read_text())
pathlib.Path("reports/tokenize").mkdir(parents=True, exist_ok=True)
score = params["ngram"]["rate"] + params["train"]["seed"] / 1000
pathlib.Path("reports/summary.json").write_text(json.dumps({"val_bpb": score, "legal": True}))
pathlib.Path("reports/tokenize/metrics.json").write_text(json.dumps({"val_bytes": 3000, "val_tokens": 1001}))
"""
PIPELINE = """
stages:
  eval_ngram:
    cmd: python stage.py
    params: [train, ngram]
    deps: [stage.py]
    metrics:
      - reports/summary.json: {cache: false}
      - reports/tokenize/metrics.json: {cache: false}
"""


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return subprocess.run(words, env=os.environ | {"PATH": path}, check=check, capture_output=True, text=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A commit, tagged base, of one run; then an experiment with another rate."""
    folder = tmp_path_factory.mktemp("daily")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_NO_ANALYTICS", "1")
        for key, value in {"AUTHOR_NAME": "t", "AUTHOR_EMAIL": "t@t", "COMMITTER_NAME": "t", "COMMITTER_EMAIL": "t@t"}.items():
            patch.setenv(f"GIT_{key}", value)
        contents = {"stage.py": STAGE, "dvc.yaml": PIPELINE, "params.yaml": "train:\n  seed: 1\nngram:\n  rate: 1.25\n"}
        for name, content in contents.items():
            Path(name).write_text(content)
        run("git", "init", "-q")
        run("dvc", "init", "-q")
        run("dvc", "repro", "-q")
        run("git", "add", "-A")
        run("git", "commit", "-qm", "base")
        run("git", "tag", "base")
        run("dvc", "exp", "run", "-q", "-n", "quick-fox", "-S", "ngram.rate=1.0", "-S", "train.seed=2")
        yield folder


def test_an_experiment_is_compared_with_a_commit_by_name(repository):
    base, found, now = (revisions.read(name) for name in ("base", "quick-fox", "workspace"))
    assert [revision.metrics["val_bpb"] for revision in (base, found, now)] == [1.251, 1.002, 1.002]
    assert found.params == {"train.seed": 2, "ngram.rate": 1.0}
    assert [[r.name for r in group] for group in compare.groups([base, found, now])] == [["base"], ["quick-fox"]]
    assert "ngram.rate" in compare.markdown([base, found])


def test_the_advice_on_seeds_is_a_command_that_dvc_takes(repository):
    run(*compare.SEEDS.split())
    queued = run("dvc", "queue", "status").stdout
    assert queued.count("Queued") >= 3
