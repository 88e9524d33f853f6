"""The train stage survives: stopped or killed at any step, it goes on where it was and ends in the same bytes.

Most runs are `main` in this process with a signal raised at a chosen step; two are the script itself, stopped from outside.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.params import read_yaml
from fairway.text.shards import ShardWriter
from fairway.text.tokenizer import BYTE_MODEL
from fairway.train.config import Train
from stages import train

ROOT = Path(__file__).resolve().parents[2]
STEPS = 120
MODEL = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "mlp_multiple": 1.0, "rope_dims": 4, "xsa_layers": 1}
MODEL |= {"bigram_buckets": 8, "bigram_width": 4}
TRAIN = {"seed": 7, "steps": STEPS, "wall_clock_seconds": 1e9, "tokens_per_step": 32, "sequence_length": 16}
TRAIN |= {"precision": "fp32", "compile": False, "checkpoint_seconds": 0.01, "momentum_warmup_steps": 5}
CHECKPOINT, CURVE = Path("artifacts/train/checkpoint.safetensors"), Path("reports/train/loss.tsv")


def workplace(folder: Path, **changes) -> Path:
    """A folder with params and two shards of 900 bytes of text."""
    (folder / "artifacts/tokenize").mkdir(parents=True)
    (folder / "artifacts/tokenize/tokenizer.model").write_bytes(BYTE_MODEL)
    tokens = np.random.default_rng(0).integers(101, 127, 900, dtype=np.uint16)
    tokens[::60] = 1  # BOS
    with ShardWriter(folder / "artifacts/tokenize/train", "train", 500) as writer:
        writer.write(tokens)
    configure(folder, **changes)
    return folder


def configure(folder: Path, **changes) -> None:
    params = read_yaml(ROOT / "params.yaml")
    params["model"] |= MODEL
    params["train"] |= TRAIN | changes
    params["eval"] |= {"context": 16, "stride": 8}
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / CHECKPOINT).read_bytes(), (folder / CURVE).read_bytes()


def finished(folder: Path) -> tuple[bytes, bytes]:
    """Run the stage in this process to its end: the bytes of the checkpoint and of the loss curve."""
    with contextlib.chdir(folder):
        train.main()
    return results(folder)


def stopped_at(folder: Path, step: int, monkeypatch) -> None:
    """Run the stage, with a SIGTERM in the middle of a step (counted from 1)."""
    real = train.train_step

    def step_with_signal(run, *arguments):
        if run.step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return real(run, *arguments)

    with monkeypatch.context() as patch, contextlib.chdir(folder), pytest.raises(KeyboardInterrupt):
        patch.setattr(train, "train_step", step_with_signal)
        train.main()


def saved_runs(folder: Path) -> list[Path]:
    return sorted((folder / ".ckpt/train").glob("*.pt"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[bytes, bytes]:
    """What the run of the script comes to when nobody stops it."""
    return finished(workplace(tmp_path_factory.mktemp("reference")))


def start(folder: Path, **files) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "stages.train"], cwd=folder, env=environment, text=True, **files)


def once_it_has_saved(process: subprocess.Popen, folder: Path, number: int) -> None:
    while not saved_runs(folder):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)


def test_a_run_leaves_its_results_and_nothing_saved(reference, tmp_path):
    folder = workplace(tmp_path)
    assert finished(folder) == reference
    assert not (folder / ".ckpt/train").exists()
    lines = (folder / CURVE).read_text().splitlines()
    assert lines[0] == "step\tloss" and [line.split("\t")[0] for line in lines[1:]] == [str(n) for n in range(1, STEPS + 1)]
    written = {path.name for path in folder.rglob("*") if path.is_file() and "tokenize" not in path.parts}
    assert written == {"params.yaml", "checkpoint.safetensors", "ledger.json", "loss.tsv", "metrics.json", "timing.json"}


def test_the_script_stopped_by_sigterm_goes_on_where_it_was(reference, tmp_path, capsys):
    folder = workplace(tmp_path)
    with start(folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        once_it_has_saved(process, folder, signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 130 and err == "interrupted\n"
    assert not (folder / "artifacts/train").exists() and not (folder / "reports").exists()
    step = int(out.splitlines()[-1].removeprefix("train: saved at step ").removesuffix("; `dvc repro` continues from here"))
    assert 1 <= step < STEPS
    assert finished(folder) == reference
    assert f"train: continues at step {step}\n" in capsys.readouterr().out
    assert not (folder / ".ckpt/train").exists()


def test_the_script_killed_goes_on_from_its_last_save(reference, tmp_path, capsys):
    folder = workplace(tmp_path)
    with start(folder) as process:
        once_it_has_saved(process, folder, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "artifacts/train").exists()
    assert finished(folder) == reference
    assert "train: continues at step " in capsys.readouterr().out
    assert not (folder / ".ckpt/train").exists()


def test_stopped_at_any_step_the_run_ends_in_the_same_bytes(tmp_path_factory, monkeypatch, capsys):
    """Points of the curve are means over five steps: a stop between two of them must not lose the losses before it."""
    monkeypatch.setattr(train, "CURVE_POINTS", 4)
    params = {"steps": 20, "checkpoint_seconds": 1e6}
    straight = finished(workplace(tmp_path_factory.mktemp("straight"), **params))
    assert straight[1].count(b"\n") == 5
    for stops in ((1,), (5,), (7, 13), (19, 20)):
        folder = workplace(tmp_path_factory.mktemp("stopped"), **params)
        for step in stops:
            stopped_at(folder, step, monkeypatch)
            assert capsys.readouterr().out.endswith(f"train: saved at step {step}; `dvc repro` continues from here\n")
            assert len(saved_runs(folder)) == 1 and not (folder / CHECKPOINT).exists()
        assert finished(folder) == straight
        assert f"train: continues at step {stops[-1]}\n" in capsys.readouterr().out
        assert not (folder / ".ckpt/train").exists()


@pytest.mark.parametrize("changes", [{"seed": 8}, {"muon_lr": 0.01}])
def test_another_run_does_not_pick_up_what_was_saved(tmp_path_factory, monkeypatch, capsys, changes):
    stopped, fresh = (workplace(tmp_path_factory.mktemp(name), steps=6) for name in ("stopped", "fresh"))
    stopped_at(stopped, 3, monkeypatch)
    for folder in (stopped, fresh):
        configure(folder, steps=6, **changes)
    capsys.readouterr()
    assert finished(stopped) == finished(fresh)
    assert "continues" not in capsys.readouterr().out


def test_the_key_of_a_run_holds_its_params_its_data_and_its_code(tmp_path, monkeypatch):
    monkeypatch.chdir(workplace(tmp_path))
    params = read_yaml("params.yaml")

    def key(**changes) -> str:
        config = {name: changes.get(name, value) for name, value in params["train"].items()}
        model = {name: changes.get(name, value) for name, value in params["model"].items()}
        return train.run_key(Architecture(**model, vocabulary_size=260, bos=1, sequence_length=16), Train(**config))

    keys = [key(), key(seed=8), key(width=32)]
    assert key() == keys[0]
    for room in ("lm", "optim", "train"):
        Path("fairway", room).mkdir(parents=True)
        Path("fairway", room, "a.py").write_text("1")
        keys.append(key())
    Path("fairway/optim/a.py").write_text("2")
    keys.append(key())
    shard = Path("artifacts/tokenize/train/train_000001.bin")
    shard.write_bytes(shard.read_bytes()[:-1] + b"\1")
    keys.append(key())
    assert len(set(keys)) == len(keys) == 8


def test_a_loss_that_is_not_finite_gets_a_sentence_and_keeps_the_last_save(tmp_path, monkeypatch, capsys):
    folder = workplace(tmp_path, steps=8, checkpoint_seconds=1e-9)
    real, calls = train.cross_entropy, []

    def poisoned(*arguments):
        calls.append(1)
        return real(*arguments) * (torch.nan if len(calls) == 6 else 1)

    with monkeypatch.context() as patch, contextlib.chdir(folder), pytest.raises(InputError) as error:
        patch.setattr(train, "cross_entropy", poisoned)
        train.main()
    assert str(error.value) == (
        "the training loss is nan at step 5; the last good checkpoint is kept: "
        "lower train.muon_lr, train.embedding_lr or train.scalar_lr"
    )
    assert len(saved_runs(folder)) == 1 and not (folder / "artifacts/train").exists()
    finished(folder)
    assert "train: continues at step 5\n" in capsys.readouterr().out


def test_a_run_that_the_clock_ends_before_its_first_point_still_has_a_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CURVE_POINTS", 2)
    folder = workplace(tmp_path, steps=100, wall_clock_seconds=1e-6)
    _, curve = finished(folder)
    assert curve.splitlines()[0] == b"step\tloss" and curve.splitlines()[1].startswith(b"1\t")
