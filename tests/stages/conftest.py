"""A folder in which every stage before report has run (finished_stages.py)."""

import math
from pathlib import Path

import numpy as np
import pytest

from fairway.score.files import SCORE
from fairway.text.tokenizer import BYTE_MODEL
from stages import report
from tests.stages.finished_stages import CERTIFICATE, CODED, MATRICES, PYZ, SCORED, TEXT, certificate_of, put


@pytest.fixture(scope="module")
def scores():
    """2,000 targets in four documents, by stage."""
    random = np.random.default_rng(0)
    rows = np.zeros(2000, SCORE)
    rows["token"] = random.integers(4, 260, len(rows))  # of the vocabulary of bytes
    rows["bytes"] = random.integers(1, 6, len(rows))
    rows["bytes"][[400, 900, 901 + 500]] = 0
    by_stage = {}
    for stage, _ in SCORED:
        by_stage[stage] = rows.copy()
        by_stage[stage]["nats"] = by_stage[stage]["neural"] = random.exponential(2.5, len(rows))
    by_stage["eval_ngram"]["neural"] = by_stage["eval_ttt"]["nats"]
    by_stage["eval_ngram"]["order"] = random.integers(1, 8, len(rows))
    return by_stage


@pytest.fixture
def workplace(tmp_path, monkeypatch, scores):
    """What the stages before leave behind."""
    monkeypatch.chdir(tmp_path)
    metrics = {stage: {} for stage in report.STAGES}
    for stage, key in SCORED:
        Path("artifacts", stage).mkdir(parents=True)
        np.save(f"artifacts/{stage}/scores.npy", scores[stage])
        rows = scores[stage]
        bits = sum(map(float, rows["nats"])) / math.log(2)
        metrics[stage][key] = round(bits / sum(map(int, rows["bytes"])), 6)
    metrics["tokenize"] = {"val_tokens": 2001}
    metrics["eval_sliding"] |= {"val_bpb_float": 1.4, "val_bpb_quant": 1.5, "quant_gap_bpb": 0.1}
    metrics["train"] = {"parameters": 1000, "train_tokens": 50000}
    metrics["compress"] = {
        "artifact_bytes": 700,
        "headroom_bytes": 300,
        "code_bytes": 100,
        "tokenizer_bytes": 50,
        "weights_bytes": 550,
        "bits_per_weight": 4.4,
    }
    bpb = round(8 * len(CODED) / (len(TEXT) - 500), 6)
    metrics["certify"] = {"legal": True, "certified_tokens": 2000, "certified_bpb": bpb}
    for stage in report.STAGES:
        put(f"reports/{stage}/metrics.json", metrics[stage])
        put(f"reports/{stage}/timing.json", {"seconds": 1.5})
    put("reports/quant/matrices.tsv", MATRICES)
    put("artifacts/tokenize/tokenizer.model", BYTE_MODEL.decode())
    put("params.yaml", "train: {seed: 1}\n")
    put(
        "reports/compress/roles.tsv",
        "role\tname\tweights\tbytes\nmatrix\ta\t990\t500\nsmall\tb\t10\t40\ncontainer\theader\t0\t10\n",
    )
    put("reports/train/loss.tsv", "step\tloss\n10\t6.5\n20\t3.25\n")
    for name, content in (("submission.pyz", PYZ), ("coded.fwt", CODED), ("val.txt", TEXT)):
        Path("artifacts/certify").mkdir(exist_ok=True)
        Path("artifacts/certify", name).write_bytes(content)
    put(CERTIFICATE, certificate_of(metrics))
    put("artifacts/certify/certificate.md", "# Certificate\n")
    return metrics
