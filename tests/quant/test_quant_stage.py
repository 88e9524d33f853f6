"""The quant stage on a tiny network: the same bytes twice, a network that still works, and the reports."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from fairway.lm import checkpoint
from fairway.lm.model import GPT
from fairway.quant import artifact
from fairway.quant.quantiser import dequantise_state
from fairway.text.shards import ShardWriter
from stages import quant

PARAMS = """
quant: {method: METHOD, bits: 6, clip: 12.85, embedding_bits: 8, embedding_clip: 20.0,
        calibration_tokens: 999, damping: 1e-2, block: 128}
"""


@pytest.fixture
def network(tiny, tmp_path, monkeypatch) -> GPT:
    """A random network and 2,000 random tokens, laid out as the stages before would."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # wide enough for matrices and tables to be quantised, not kept as small tensors
    architecture = dataclasses.replace(tiny, width=64, vocabulary_size=80, bigram_buckets=300, sequence_length=8)
    model = GPT(architecture)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    (tmp_path / "artifacts" / "prequant_ttt").mkdir(parents=True)
    checkpoint.save("artifacts/prequant_ttt/checkpoint.safetensors", architecture, model.state_dict())
    with ShardWriter(tmp_path / "artifacts" / "tokenize" / "train", "train", 1500) as writer:
        writer.write(np.random.default_rng(0).integers(0, 80, 2000).astype(np.uint16))
    return model


@pytest.mark.parametrize("method", ["gptq", "rtn"])
def test_stage(network, tmp_path, method):
    (tmp_path / "params.yaml").write_text(PARAMS.replace("METHOD", method))
    path = tmp_path / "artifacts" / "quant" / "integers.safetensors"
    quant.main()
    first = path.read_bytes()
    quant.main()
    assert path.read_bytes() == first

    architecture, matrices, small = artifact.load(path)
    restored = GPT(architecture)
    restored.load_state_dict(dequantise_state(matrices, small))
    tokens = torch.randint(0, 80, (4, 8))
    with torch.no_grad():
        exact, rounded = network(tokens.clone()), restored(tokens.clone())
    assert 0 < (exact - rounded).std() < 0.3 * exact.std()

    metrics = json.loads((tmp_path / "reports" / "quant" / "metrics.json").read_text())
    with (tmp_path / "reports" / "quant" / "matrices.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert {row["name"] for row in rows} == set(matrices)
    linear = sum(row["role"] == "matrix" for row in rows)
    assert linear > 0
    assert metrics["gptq_matrices"] == (linear if method == "gptq" else 0)
    assert metrics["gptq_matrices"] + metrics["rtn_matrices"] == len(rows)
    assert 3 < metrics["bits_per_weight"] < 5


def test_calibration_batches_are_the_windows_in_order():
    tokens, starts = np.arange(50_000, dtype=np.uint16), [0, 7, 40_000]
    batches = list(quant.calibration_batches(tokens, starts, 5_000, torch.device("cpu")))
    assert [tuple(batch.shape) for batch in batches] == [(1, 5_000)] * 3
    assert [batch[0, 0].item() for batch in batches] == starts
    (batch,) = quant.calibration_batches(tokens, starts, 10, torch.device("cpu"))
    assert torch.equal(batch, torch.stack([torch.arange(start, start + 10) for start in starts]))
