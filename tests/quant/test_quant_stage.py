"""The stages quant and compress on a tiny network: repeatable bytes, byte budgets, several ranks, every coder."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fairway.codec import archive, container
from fairway.errors import InputError
from fairway.lm import checkpoint
from fairway.lm.model import GPT
from fairway.params import read_yaml
from fairway.quant import artifact
from fairway.submission import packing
from fairway.text.shards import ShardWriter
from fairway.text.tokenizer import BYTE_MODEL
from stages import compress, launch, quant
from tests.ranks import run_stage

ROOT = Path(__file__).resolve().parents[2]
TOKENS = 20_000
INTEGERS = Path("artifacts/quant/integers.safetensors")
PYZ, WEIGHTS = Path("artifacts/compress/submission.pyz"), Path("artifacts/compress/model.fwy")
TINY = {"calibration_tokens": 999, "clip": 8.0, "embedding_clip": 8.0}


def configure(quant_section: dict, compress_section: dict | None = None) -> None:
    """The shipped params with other values in the two sections of these stages."""
    params = read_yaml(ROOT / "params.yaml")
    params["quant"] |= quant_section
    params["compress"] |= compress_section or {}
    params["model"] |= {"layers": 3, "xsa_layers": 1}  # what quant.finer_layers are checked against
    Path("params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def report(stage: str, name: str) -> dict | list[dict]:
    path = Path("reports", stage, name)
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with path.open() as table:
        return list(csv.DictReader(table, delimiter="\t"))


@pytest.fixture
def network(tiny, shaken, tmp_path, monkeypatch) -> GPT:
    """The artifacts of earlier stages: a random network, random tokens and the byte tokenizer. Packing real code would take
    seconds, and these tests are not about it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(packing, "code_stream", lambda modules, root: bytes(20_000))
    # wide enough for matrices and tables to be quantised instead of kept as fp16 tensors
    architecture = dataclasses.replace(tiny, width=72, rope_dims=6, vocabulary_size=80, bigram_buckets=300, sequence_length=8)
    model = shaken(architecture)
    Path("artifacts/prequant_ttt").mkdir(parents=True)
    checkpoint.save("artifacts/prequant_ttt/checkpoint.safetensors", architecture, model.state_dict())
    with ShardWriter(tmp_path / "artifacts" / "tokenize" / "train", "train", 15_000) as writer:
        writer.write(np.random.default_rng(0).integers(0, 80, TOKENS).astype(np.uint16))
    Path("artifacts/tokenize/tokenizer.model").write_bytes(BYTE_MODEL)
    return model


def restored() -> GPT:
    """The network in the artifact of quant."""
    architecture, matrices, fp16 = artifact.load(INTEGERS)
    weights = {name: matrix.weights() for name, matrix in matrices.items()} | fp16
    model = GPT(architecture)
    model.load_state_dict({name: torch.from_numpy(values).float() for name, values in weights.items()})
    return model.eval()


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "gptq"),
        ({"allocation": "uniform", "trellis": 0, "rotation": "none"}, "gptq"),
        ({"method": "rtn"}, "rtn"),
        ({"method": "rtn", "allocation": "uniform", "calibration_tokens": 10**9}, "rtn"),
        ({"method": "gptq_lite", "clip_rule": "percentile_row", "allocation": "uniform"}, "gptq_lite"),
    ],
)
def test_the_same_bytes_twice_and_a_network_that_still_works(network, changes, method):
    configure(TINY | changes)
    quant.main()
    first = INTEGERS.read_bytes()
    quant.main()
    assert INTEGERS.read_bytes() == first

    tokens = torch.randint(0, 80, (4, 8), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, rounded = network(tokens), restored()(tokens)
    assert 0 < (exact - rounded).std() < 0.3 * exact.std()

    metrics, rows = report("quant", "metrics.json"), report("quant", "matrices.tsv")
    assert {row["name"] for row in rows} == set(artifact.load(INTEGERS)[1])
    assert {row["role"] for row in rows} == {"attention", "feed_forward", "embedding"}
    assert {row["method"] for row in rows} == {method}
    assert metrics["gptq_matrices"] + metrics["rtn_matrices"] == len(rows)
    assert 3.5 < metrics["entropy_bits_per_weight"] < 6 and metrics["log2_step_scale"] == 0


@pytest.mark.parametrize(
    ("changes", "tokens"),
    [
        ({}, 124 * 8),  # whole windows of 8
        ({"calibration_tokens": 1}, 8),
        ({"calibration_tokens": 10**9}, TOKENS),
        ({"method": "rtn", "allocation": "uniform"}, 0),  # nobody asks
        ({"method": "rtn", "allocation": "uniform", "repair_matrices": 1}, 124 * 8),
    ],
)
def test_calibration_reads_as_much_of_the_training_text_as_it_says(network, changes, tokens):
    configure(TINY | changes)
    quant.main()
    ledger = json.loads(Path("artifacts/quant/ledger.json").read_text())
    assert (ledger["learned_from"], ledger["tokens"], ledger["val_tokens_before_scoring"]) == ("train", tokens, 0)
    assert report("quant", "timing.json")["calibration_tokens"] == tokens


@pytest.mark.parametrize("calibration", ["generated", "random"])
def test_calibration_without_text_learns_from_none(network, calibration):
    configure(TINY | {"calibration": calibration, "calibration_tokens": 200})
    quant.main()
    first = INTEGERS.read_bytes()
    quant.main()
    assert INTEGERS.read_bytes() == first
    assert json.loads(Path("artifacts/quant/ledger.json").read_text())["tokens"] == 0
    assert report("quant", "timing.json")["calibration_tokens"] == 200
    assert not report("quant", "metrics.json")["fallback_matrices"]
    configure(TINY | {"calibration": "train", "calibration_tokens": 200})
    quant.main()
    assert INTEGERS.read_bytes() != first


@pytest.mark.parametrize(
    ("changes", "coder"),
    [({}, "range"), ({"allocation": "uniform", "trellis": 0, "clip_rule": "mse"}, "zstd"), ({"method": "rtn"}, "lzma")],
)
def test_a_target_is_filled_and_is_what_compress_writes(network, monkeypatch, capsys, changes, coder):
    configure(TINY | changes, {"coder": coder})
    quant.main()
    compress.main()
    monkeypatch.setattr(archive, "CODE_BYTES", report("compress", "metrics.json")["code_bytes"])
    target = PYZ.stat().st_size - 5000  # of some 35,000 bytes of integers
    configure(TINY | changes | {"target_bytes": target}, {"coder": coder, "budget_bytes": target})
    quant.main()
    tried = [line for line in capsys.readouterr().out.splitlines() if "bytes with steps" in line]
    compress.main()
    assert tried[-1].startswith(f"quant: {PYZ.stat().st_size:,} bytes")
    assert 0.999 * target <= PYZ.stat().st_size <= target
    assert report("quant", "metrics.json")["log2_step_scale"] > 0
    assert report("compress", "metrics.json")["headroom_bytes"] == target - PYZ.stat().st_size


def test_compress_says_when_the_code_is_not_as_large_as_quant_assumes(network, monkeypatch, capsys):
    configure(TINY)
    quant.main()
    compress.main()
    size, code = PYZ.stat().st_size, report("compress", "metrics.json")["code_bytes"]
    target = size - 3000

    def compressed_for(code_bytes: int) -> str:
        monkeypatch.setattr(archive, "CODE_BYTES", code_bytes)
        configure(TINY | {"target_bytes": target})
        quant.main()
        capsys.readouterr()
        compress.main()
        return capsys.readouterr().out

    assert "CODE_BYTES" not in compressed_for(code)
    said = compressed_for(code + 500)
    assert f"for a quant.target_bytes of {target:,}, because its code takes {code:,} and not {code + 500:,};" in said
    with pytest.raises(InputError, match=rf"^submission.pyz takes .*; set CODE_BYTES in .*archive.py to {code} and run"):
        compressed_for(code - 500)


def test_a_target_out_of_reach_names_the_smallest_size(network):
    configure(TINY | {"target_bytes": 10_000})
    with pytest.raises(
        InputError, match=r"^quant.target_bytes 10,000 cannot be met: on the coarsest grids the submission takes"
    ):
        quant.main()
    assert not INTEGERS.exists()


def test_more_ranks_are_launched(network, monkeypatch):
    configure(TINY)
    monkeypatch.setenv("NPROC", "2")
    monkeypatch.setattr(launch, "launch", lambda module, ranks: (module, ranks))
    with pytest.raises(SystemExit) as end:
        quant.main()
    assert end.value.code == ("stages.quant", 2)


def test_two_ranks_round_as_one_does(network):
    """Ranks share several batches; their sums are added in another order."""
    configure(TINY | {"calibration_tokens": TOKENS})
    quant.main()
    _, single, fp16 = artifact.load(INTEGERS)
    run_stage("quant", Path.cwd(), 2)
    timing = report("quant", "timing.json")
    assert (timing["world_size"], timing["calibration_tokens"]) == (2, TOKENS)
    _, together, fp16_together = artifact.load(INTEGERS)
    assert all(np.array_equal(fp16[name], fp16_together[name]) for name in fp16)
    for name, matrix in single.items():
        assert np.mean(together[name].scales == matrix.scales) > 0.98
        difference = np.linalg.norm(together[name].weights() - matrix.weights())
        assert difference < 0.05 * np.linalg.norm(matrix.weights())


@pytest.mark.parametrize("coder", ["range", "zstd", "lzma", "brotli"])
def test_every_coder_keeps_every_weight(network, coder):
    configure(TINY | {"repair_matrices": 1}, {"coder": coder})
    quant.main()
    compress.main()
    architecture, matrices, fp16 = artifact.load(INTEGERS)
    config, weights = container.read(WEIGHTS.read_bytes())
    assert config == dataclasses.asdict(architecture)
    assert weights.keys() == matrices.keys() | fp16.keys()
    assert all(weights[name].tobytes() == matrix.weights().tobytes() for name, matrix in matrices.items())
    assert all(weights[name].astype(np.float16).tobytes() == values.tobytes() for name, values in fp16.items())
    first = PYZ.read_bytes()
    compress.main()
    assert PYZ.read_bytes() == first

    metrics, rows = report("compress", "metrics.json"), report("compress", "roles.tsv")
    assert metrics["artifact_bytes"] == len(first)
    assert metrics["weights_bytes"] == sum(int(row["bytes"]) for row in rows) == WEIGHTS.stat().st_size
    assert metrics["parameters"] == sum(int(row["weights"]) for row in rows) == sum(w.size for w in weights.values())
    assert metrics["challenge_bytes"] == metrics["code_bytes"] + metrics["weights_bytes"]
    assert {row["role"] for row in rows} == {"attention", "feed_forward", "embedding", "fp16", "container"}


def test_a_submission_above_the_budget_is_refused_with_what_would_help(network):
    configure(TINY, {"budget_bytes": 20_000})
    quant.main()
    with pytest.raises(InputError) as error:
        compress.main()
    size = int(str(error.value).split()[2].replace(",", ""))
    assert str(error.value) == (
        f"submission.pyz takes {size:,} bytes, {size - 20_000:,} more than compress.budget_bytes 20,000; "
        "lower quant.bits, or set quant.target_bytes 20000 to have it filled"
    )
    assert not PYZ.exists() and not WEIGHTS.exists()
