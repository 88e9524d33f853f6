"""A replay of small pipelines: it repeats what params, code and data make, and misses what anything else has added."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from fairway import replay
from fairway.errors import InputError
from fairway.recorded import md5_of
from fairway.report import replayed, revisions

STAGES = {
    "train.py": """
import json, pathlib, yaml
text, params = pathlib.Path("data/text.txt").read_text(), yaml.safe_load(pathlib.Path("params.yaml").read_text())
kernel = pathlib.Path("lib/__pycache__/kernel")  # what a compiler has left
if not kernel.exists():
    kernel.parent.mkdir(parents=True, exist_ok=True)
    kernel.write_text("times 2")
state = pathlib.Path(".ckpt/state")  # of an interrupted run
words = [text, kernel.read_text(), state.read_text() if state.exists() else "", str(params["train"]["seed"])]
for folder in ("artifacts/train/shards/deep", "reports/train"):
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
pathlib.Path("artifacts/train/model").write_text(" ".join(words))
pathlib.Path("artifacts/train/shards/deep/a").write_text(text)
pathlib.Path("artifacts/train/shards/b").write_text(text * 2)
pathlib.Path("reports/train/metrics.json").write_text(json.dumps({"device": params["train"]["device"]}))
""",
    "certify.py": """
import hashlib, json, pathlib, time
model, folder = pathlib.Path("artifacts/train/model").read_bytes(), pathlib.Path("artifacts/certify")
folder.mkdir(parents=True, exist_ok=True)
(folder / "submission.pyz").write_bytes(b"PK" + model)
digest = hashlib.sha256(b"PK" + model).hexdigest()
certificate = {"submission_sha256": digest, "arithmetic": pathlib.Path("arithmetic.txt").read_text(), "commit": time.time()}
(folder / "certificate.json").write_text(json.dumps(certificate))
(folder / "certificate.md").write_text(str(time.time()))
pathlib.Path("reports/summary.json").write_text(json.dumps({"val_bpb": 1 + len(model) / 1000}))
""",
}
PIPELINE = """
stages:
  train:
    cmd: python train.py
    params: [train]
    deps: [data, train.py]
    outs: [artifacts/train/model, artifacts/train/shards, reports/train/metrics.json]
  certify:
    cmd: python certify.py
    deps: [artifacts/train/model, certify.py, arithmetic.txt]
    outs: [artifacts/certify/submission.pyz, artifacts/certify/certificate.json, artifacts/certify/certificate.md]
    metrics:
      - reports/summary.json: {cache: false}
"""
IGNORED = "/artifacts/\n/.ckpt/\n__pycache__/\n/reports/train/\n"


def dvc(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *words], check=True, capture_output=True)


def commit() -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "run"], check=True)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository of two stages, which have not run."""
    folder = tmp_path / "work"
    (folder / "data").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    monkeypatch.setattr(replay, "arithmetic_here", lambda: "this CPU")
    params = "train: {seed: 1, device: cpu}\n"
    contents = STAGES | {"dvc.yaml": PIPELINE, "params.yaml": params, ".gitignore": IGNORED, "arithmetic.txt": "this CPU"}
    for name, content in (contents | {"data/text.txt": "We the People"}).items():
        Path(name).write_text(content, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], check=True)
    dvc("init", "-q")
    return folder


def recorded() -> None:
    """Run the pipeline, and commit what it wrote."""
    dvc("repro")
    commit()


def replayed_with(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["replay", *words])
    return replay.main()


def test_an_honest_run_repeats(repository, monkeypatch, capsys):
    recorded()
    hashes = {
        out["path"]: out["md5"] for s in yaml.safe_load(Path("dvc.lock").read_text())["stages"].values() for out in s["outs"]
    }
    assert all(md5_of(Path(path)) == md5 for path, md5 in hashes.items())  # of files and of a folder, as DVC has them
    assert replayed_with(monkeypatch) == 0
    printed = capsys.readouterr().out
    assert "replay: same bytes" in printed and "made from other inputs" not in printed
    assert replayed.of_workspace().endswith("same bytes (4 files of the same bytes, 0 others; this CPU).")
    assert json.loads(replay.RECORD.read_text())["bytes_equal"] > 0


def test_a_planted_state_and_a_poisoned_cache_are_not_repeated(repository, monkeypatch, capsys):
    for path in (".ckpt/state", "lib/__pycache__/kernel"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("what val says")
        recorded()
        assert subprocess.run(["git", "status", "--porcelain"], capture_output=True).stdout == b""
        assert replayed_with(monkeypatch) == 1
        printed = capsys.readouterr().out
        for name in ("train/model", "certify/submission.pyz", "certify/certificate.json"):
            assert f"differs: artifacts/{name}" in printed
        assert "shards" not in printed and "replay: differs" in printed
        assert replayed.of_workspace().split(": ")[1].startswith("differs (1 files of the same bytes, 3 others")
        Path(path).unlink()
        Path("data/text.txt").write_text("We the People of " + path)
        replay.RECORD.unlink()


def test_a_state_that_is_committed_is_no_input_either(repository, monkeypatch, capsys):
    Path(".ckpt").mkdir()
    Path(".ckpt/state").write_text("what val says")
    subprocess.run(["git", "add", "-f", ".ckpt/state"], check=True)
    recorded()
    assert replayed_with(monkeypatch) == 1
    assert "differs: artifacts/train/model" in capsys.readouterr().out


def test_params_that_were_changed_after_the_run_are_named(repository, monkeypatch, capsys):
    recorded()
    Path("params.yaml").write_text("train: {seed: 2, device: cpu}\n")
    with pytest.raises(InputError, match=r"params\.yaml: not as in the last commit"):
        replayed_with(monkeypatch)
    commit()
    assert replayed_with(monkeypatch) == 1
    assert "made from other inputs than the commit has: params.yaml: train of train." in capsys.readouterr().out


def test_where_bytes_do_not_repeat_the_score_is_compared(repository, monkeypatch, capsys):
    Path("arithmetic.txt").write_text("another CPU")
    Path(".ckpt").mkdir()
    Path(".ckpt/state").write_text("ten bytes.")  # the score is 0.010 higher
    recorded()
    assert replayed_with(monkeypatch) == 1
    assert "give --seeds or --noise" in capsys.readouterr().out
    assert replayed_with(monkeypatch, "--noise", "0.01") == 0
    assert "replay: same score, within the noise of seeds" in capsys.readouterr().out
    Path("arithmetic.txt").write_text("this CPU")  # where bytes repeat, noise is no excuse
    recorded()
    assert replayed_with(monkeypatch, "--noise", "0.01") == 1


def test_how_likely_a_score_is_by_chance(monkeypatch):
    scores = {"a": 1.20, "b": 1.21, "c": 1.22}
    monkeypatch.setattr(revisions, "read", lambda name: Namespace(metrics={"val_bpb": scores[name]}))
    seeds = Namespace(noise=None, seeds=["a", "b", "c"])
    assert replay.chance(1.20, 1.21, seeds) == pytest.approx(1)
    assert replay.chance(1.20, 1.25, seeds) == pytest.approx(0.0742, abs=1e-3)  # t = 4/√(4/3) of two degrees of freedom
    assert replay.chance(1.20, 1.20 + 1.96 * 2**0.5 * 0.01, Namespace(noise=0.01, seeds=[])) == pytest.approx(0.05, abs=1e-3)
    assert replay.chance(1.2, 1.3, Namespace(noise=None, seeds=[])) is None
    with pytest.raises(InputError, match="2 runs; give at least three"):
        replay.chance(1.2, 1.3, Namespace(noise=None, seeds=["a", "b"]))


def test_without_a_recorded_run_there_is_nothing_to_repeat(repository, monkeypatch):
    commit()
    with pytest.raises(InputError, match=r"dvc\.lock: missing"):
        replayed_with(monkeypatch)
