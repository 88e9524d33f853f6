"""The train stage survives: stopped or killed at any step, it goes on where it was and ends in the same bytes.

Most runs are `main` in this process with a signal raised at a chosen step; some are the script itself, on one rank or
two, stopped from outside.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from fairway.errors import InputError
from fairway.lm.config import Architecture
from fairway.params import read_yaml
from fairway.text.shards import ShardWriter
from fairway.text.tokenizer import BYTE_MODEL
from fairway.train import fit, objective
from fairway.train.config import Qat, Train
from fairway.train.ranks import Ranks
from stages import train
from tests.ranks import run_stage

ROOT = Path(__file__).resolve().parents[2]
STEPS = 120
MODEL = {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "mlp_multiple": 1.0, "rope_dims": 4, "xsa_layers": 1}
MODEL |= {"bigram_buckets": 8, "bigram_width": 4, "recurrence": "none", "recurrence_layers": [0]}
MODEL |= {"value_embedding_layers": [], "mod_layers": []}
TRAIN = {"seed": 7, "steps": STEPS, "wall_clock_seconds": 1e9, "tokens_per_step": 32, "tokens_per_pass": 32}
TRAIN |= {"sequence_length": 16, "precision": "fp32", "compile": False, "checkpoint_seconds": 0.01, "momentum_warmup_steps": 5}
TRAIN |= {"muon_lr": 0.02, "embedding_lr": 0.02, "scalar_lr": 0.02, "average": "ema", "mtp_heads": 1}
MANIFEST = Path("artifacts/tokenize/manifest.json")
CHECKPOINT, CURVE = Path("artifacts/train/checkpoint.safetensors"), Path("reports/train/loss.tsv")


def workplace(folder: Path, **changes) -> Path:
    """A folder with params, two shards of 900 bytes of text, and what the manifest says of them."""
    (folder / "artifacts/tokenize").mkdir(parents=True)
    (folder / "artifacts/tokenize/tokenizer.model").write_bytes(BYTE_MODEL)
    (folder / MANIFEST).write_text(json.dumps({"splits": {"train": {"sha256": "0a"}}, "tokenizer": {"sha256": "0b"}}))
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
    real = fit.train_step

    def step_with_signal(state, *arguments):
        if state.step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return real(state, *arguments)

    with monkeypatch.context() as patch, contextlib.chdir(folder), pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "train_step", step_with_signal)
        train.main()


def saved_steps(folder: Path, ranks: int = 1) -> list[int]:
    """The steps that all ranks have saved, in order."""
    saved = [
        {int(path.name.split(".")[0].removeprefix("step")) for path in folder.glob(f".ckpt/train/*/*.rank{rank}of{ranks}.pt")}
        for rank in range(ranks)
    ]
    return sorted(set.intersection(*saved))


@pytest.fixture(scope="module", autouse=True)
def one_rank_without_gpu():
    """What runs in this process runs as the script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NPROC", "1")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> tuple[bytes, bytes]:
    """What the run of the script comes to when nobody stops it."""
    return finished(workplace(tmp_path_factory.mktemp("reference")))


def start(folder: Path, ranks: int = 1, **files) -> subprocess.Popen:
    """The script on some ranks, without a GPU."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "NPROC": str(ranks),
    }
    return subprocess.Popen([sys.executable, "-m", "stages.train"], cwd=folder, env=environment, text=True, **files)


def once_it_has_saved(process: subprocess.Popen, folder: Path, number: int, step: int = 1, ranks: int = 1) -> None:
    """Send a signal when a step, or a later one, is there on all ranks."""
    while max(saved_steps(folder, ranks), default=0) < step:
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


def test_a_run_that_the_clock_ends_says_so(tmp_path, capsys):
    for folder, seconds in ((tmp_path / "slow", 1e-6), (tmp_path / "fast", 1e6)):
        folder.mkdir()
        finished(workplace(folder, wall_clock_seconds=seconds))
        metrics, said = json.loads((folder / "reports/train/metrics.json").read_text()), capsys.readouterr().out
        ended = f"train: train.wall_clock_seconds 1e-06 ended it after 1 of {STEPS} steps" in said
        assert ended == metrics["stopped_by_clock"] == (folder.name == "slow") == (metrics["train_steps"] == 1)


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


def test_ranks_whose_launcher_is_killed_save_and_stop(tmp_path):
    folder = workplace(tmp_path, steps=10**6)
    with start(folder, ranks=2) as process:
        once_it_has_saved(process, folder, signal.SIGSTOP, ranks=2)
        ranks = psutil.Process(process.pid).children()
        process.kill()
    assert len(ranks) == 2
    assert psutil.wait_procs(ranks, timeout=60)[1] == []
    assert saved_steps(folder, ranks=2) and not (folder / CHECKPOINT).exists()


def test_the_script_killed_goes_on_from_its_last_save(reference, tmp_path, capsys):
    folder, step = workplace(tmp_path), random.Random(0).randrange(2, STEPS // 2)
    with start(folder) as process:
        once_it_has_saved(process, folder, signal.SIGKILL, step)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "artifacts/train").exists()
    saved = max(saved_steps(folder))
    assert step <= saved < STEPS
    assert finished(folder) == reference
    assert f"train: continues at step {saved}\n" in capsys.readouterr().out
    assert not (folder / ".ckpt/train").exists()


def test_the_reports_grow_while_it_trains_and_are_whole_after_a_stop(reference, tmp_path, monkeypatch):
    """What dvc plots and editors see: the curve up to now at every moment, never half a file; the end is as ever."""
    monkeypatch.setattr(fit, "REPORT_SECONDS", 0.0)
    folder, seen = workplace(tmp_path, checkpoint_seconds=1e6), []
    real = fit.train_step

    def watched(*arguments):
        if (folder / CURVE).exists():
            rows = (folder / CURVE).read_text().splitlines()
            metrics = json.loads((folder / "reports/train/metrics.json").read_text())
            assert rows[0] == "step\tloss" and len(rows) == 1 + metrics["train_steps"]
            assert json.loads((folder / "reports/train/timing.json").read_text())["tokens_per_second"] > 0
            seen.append(metrics["train_steps"])
        return real(*arguments)

    monkeypatch.setattr(fit, "train_step", watched)
    stopped_at(folder, 50, monkeypatch)
    assert seen == list(range(1, 50)) and (folder / CURVE).read_bytes() == b"".join(reference[1].splitlines(True)[:51])
    assert finished(folder) == reference
    assert seen == list(range(1, STEPS))


def test_two_ranks_stopped_by_sigterm_go_on_where_they_were(tmp_path_factory):
    """Two runs on two ranks, one of them stopped: both end in the same bytes."""
    straight = workplace(tmp_path_factory.mktemp("straight"), steps=60, checkpoint_seconds=1e6)
    stopped = workplace(tmp_path_factory.mktemp("stopped"), steps=60)
    run_stage("train", straight, 2)
    outputs = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(stopped, 2, **outputs) as process:
        once_it_has_saved(process, stopped, signal.SIGTERM, ranks=2)
        out, err = process.communicate()
    assert (process.returncode, err) == (130, "interrupted\n")
    assert not (stopped / "artifacts/train").exists()
    step = max(saved_steps(stopped, 2))
    assert 1 <= step < 60 and f"train: saved at step {step}; `dvc repro` continues from here\n" in out
    with start(stopped, 2, **outputs) as again:
        out, err = again.communicate()
    assert (again.returncode, err) == (0, "") and out.count(f"train: continues at step {step}\n") == 1
    assert results(stopped) == results(straight)
    metrics = json.loads((stopped / "reports/train/metrics.json").read_text())
    assert metrics == json.loads((straight / "reports/train/metrics.json").read_text())
    assert metrics["world_size"] == 2 and metrics["train_tokens"] == 32 * 60
    assert not (stopped / ".ckpt/train").exists()


def test_ranks_that_cannot_share_a_step_get_a_sentence(tmp_path, monkeypatch):
    folder = workplace(tmp_path)
    sentence = "train.tokens_per_step 32 is 2 sequences of 16, which 3 ranks cannot share equally"
    with start(folder, 3, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.communicate() == ("", f"error: {sentence}\n")
    assert process.returncode == 1 and not (folder / "reports").exists()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(train.Ranks, "join", lambda: Ranks(0, 3))  # as torchrun starts it
    monkeypatch.setattr(train.Ranks, "leave", lambda self: None)
    with pytest.raises(InputError, match=sentence):
        train.main()


def test_stopped_at_any_step_the_run_ends_in_the_same_bytes(tmp_path_factory, monkeypatch, capsys):
    """Points of the curve are means over five steps: a stop between two of them must not lose the losses before it."""
    monkeypatch.setattr(fit, "CURVE_POINTS", 4)
    params = {"steps": 20, "checkpoint_seconds": 1e6}
    straight = finished(workplace(tmp_path_factory.mktemp("straight"), **params))
    assert straight[1].count(b"\n") == 5
    for stops in ((1,), (5,), (7, 13), (19, 20)):
        folder = workplace(tmp_path_factory.mktemp("stopped"), **params)
        for step in stops:
            stopped_at(folder, step, monkeypatch)
            assert capsys.readouterr().out.endswith(f"train: saved at step {step}; `dvc repro` continues from here\n")
            assert saved_steps(folder) == [step] and not (folder / CHECKPOINT).exists()
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


def test_the_key_of_a_run_holds_its_params_its_data_and_the_code_that_it_imports(tmp_path, monkeypatch):
    """Editing code of other stages keeps the key, and no shard is read for it."""
    monkeypatch.chdir(workplace(tmp_path / "work"))
    monkeypatch.setattr(train, "ROOT", tmp_path)
    for package in ("fairway", "stages"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    params = read_yaml("params.yaml")

    def key(**changes) -> str:
        config = {name: changes.get(name, value) for name, value in params["train"].items()}
        model = {name: changes.get(name, value) for name, value in params["model"].items()}
        qat = {name: changes.get(name, value) for name, value in params["qat"].items()}
        architecture = Architecture(**model, vocabulary_size=260, bos=1, sequence_length=16)
        return train.run_key(architecture, Train(**config), Qat(**qat))

    def edited(path: str) -> str:
        with (tmp_path / path).open("a") as file:
            file.write("# changed\n")
        return key()

    keys = [key(), key(seed=8), key(width=32), key(prune_fraction=0.5)]
    Path("artifacts/tokenize/train/train_000001.bin").unlink()
    for path in ("quant/gptq.py", "quant/config.py", "score/ttt.py", "train/prequant_ttt.py", "mixture/tree.py"):
        assert edited(f"fairway/{path}") == keys[0]
    for path in ("lm/attention.py", "optim/muon.py", "quant/grids.py", "text/shards.py", "train/step.py", "errors.py"):
        keys.append(edited(f"fairway/{path}"))
    for hashes in (("1a", "0b"), ("1a", "1b")):
        MANIFEST.write_text(json.dumps({"splits": {"train": {"sha256": hashes[0]}}, "tokenizer": {"sha256": hashes[1]}}))
        keys.append(key())
    assert len(set(keys)) == len(keys) == 12


@pytest.mark.parametrize("damaged", [None, "", "[]", "{}", '{"splits": {}, "tokenizer": {}}', '{"splits": 1, "tokenizer": 1}'])
def test_a_damaged_manifest_gets_a_sentence(tmp_path, damaged):
    folder = workplace(tmp_path)
    (folder / MANIFEST).unlink() if damaged is None else (folder / MANIFEST).write_text(damaged)
    with pytest.raises(InputError, match=rf"^{MANIFEST}: .*`dvc repro`"):
        finished(folder)


def test_a_loss_that_is_not_finite_gets_a_sentence_and_keeps_the_last_save(tmp_path, monkeypatch, capsys):
    folder = workplace(tmp_path, steps=8, checkpoint_seconds=1e-9)
    real, calls = objective.Objective.forward, []

    def poisoned(self, *arguments):
        calls.append(1)
        return tuple(part * (torch.nan if len(calls) == 6 else 1) for part in real(self, *arguments))

    with monkeypatch.context() as patch, contextlib.chdir(folder), pytest.raises(InputError) as error:
        patch.setattr(objective.Objective, "forward", poisoned)
        train.main()
    assert str(error.value) == (
        "the training loss is nan at step 5; the last good checkpoint is kept: "
        "lower train.muon_lr, train.embedding_lr or train.scalar_lr"
    )
    assert saved_steps(folder) == [5] and not (folder / "artifacts/train").exists()
    finished(folder)
    assert "train: continues at step 5\n" in capsys.readouterr().out


def test_a_run_that_the_clock_ends_before_its_first_point_still_has_a_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "CURVE_POINTS", 2)
    folder = workplace(tmp_path, steps=100, wall_clock_seconds=1e-6)
    _, curve = finished(folder)
    assert curve.splitlines()[0] == b"step\tloss" and curve.splitlines()[1].startswith(b"1\t")
