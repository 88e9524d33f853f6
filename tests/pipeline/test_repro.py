"""The whole pipeline in a temporary clone, with tiny params: it ends in a legal certificate, and only what must re-runs."""

import json
from pathlib import Path

import clones
import numpy as np
import pytest
from clones import ALL, NEW, OLD, OTHER, reproduce, run, set_param


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """A clone after one full run."""
    return clones.copy(clones.trunk(tmp_path_factory), tmp_path_factory.mktemp("clone") / "fairway")


def test_the_score_is_proved(clone):
    certificate = json.loads((clone / "artifacts/certify/certificate.json").read_text())
    assert certificate["legal"] is True and certificate["reasons"] == []
    assert certificate["test_time_training_updates"] >= 2
    summary = json.loads((clone / "reports/summary.json").read_text())
    assert summary["artifact_bytes"] == (clone / "artifacts/certify/submission.pyz").stat().st_size
    assert certificate["verdict"] == "proved" and summary["legal"] is True
    assert summary["val_bpb"] == summary["certified_bpb"] == certificate["bpb"]
    coded = (clone / "artifacts/certify/coded.fwt").stat().st_size
    text = (clone / "artifacts/certify/val.txt").read_bytes().replace(b"\0", b"")
    assert certificate["bpb"] == round(8 * coded / len(text), 6)
    assert len(certificate["commit"]) == 40 and certificate["dirty"] is False and len(certificate["dvc_lock_sha256"]) == 64


def test_only_what_follows_a_change_runs_again(clone):
    assert reproduce(clone) == []
    path = clone / "fairway/report/figures.py"
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    assert reproduce(clone) == ["report"]
    set_param(clone, OTHER, NEW)
    assert reproduce(clone, "eval_ngram") == ["eval_ngram"]
    set_param(clone, OTHER, OLD)
    assert reproduce(clone, "eval_ngram") == []  # out of the run cache
    set_param(clone, "ngram.mixture", "none")  # eval_ttt records what the mixture reads
    assert reproduce(clone, "eval_ngram") == ["eval_ttt", "eval_ngram"]
    set_param(clone, "ngram.mixture", "tree")
    assert reproduce(clone, "eval_ngram") == []
    set_param(clone, "ttt.lr", 0.0003)
    assert reproduce(clone, "eval_ngram") == ["eval_ttt", "eval_ngram"]
    set_param(clone, "quant.embedding_extra_bits", -1)
    assert reproduce(clone, "eval_sliding") == ["quant", "compress", "eval_sliding"]


def test_training_on_the_validation_text_is_written_on_the_certificate(clone):
    set_param(clone, "prequant_ttt.source", "val")
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
