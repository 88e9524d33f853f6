"""The neutral command on two locks: what differs, what is gone and what is new, and a revision that is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import neutral
from fairway.errors import InputError
from fairway.recorded import DIFFERS, GONE, NEW, SAME, compare, outputs


def lock(**md5_of_path: str) -> dict:
    paths = {
        "scores": "artifacts/eval_ttt/scores.npy",
        "zip": "artifacts/compress/submission.pyz",
        "timing": "reports/train/timing.json",
    }
    outs = [{"path": paths.get(name, f"artifacts/train/{name}"), "md5": md5} for name, md5 in md5_of_path.items()]
    return {"stages": {"train": {"outs": outs}, "report": {}}}


def test_code_and_reports_are_left_out():
    assert outputs(lock(a="1", zip="2", timing="3"), neutral.OF_CODE) == {"artifacts/train/a": "1"}


def test_every_file_of_either_run_gets_a_verdict():
    before, after = lock(a="1", b="2", c="3"), lock(a="1", b="9", d="4")
    assert compare(*(outputs(run, neutral.OF_CODE) for run in (before, after))) == {
        "artifacts/train/a": SAME,
        "artifacts/train/b": DIFFERS,
        "artifacts/train/c": GONE,
        "artifacts/train/d": NEW,
    }


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """One commit with a lock, and a `dvc` that writes another, in which the file `a` has the hash in the file NEXT."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/dvc"
    script.write_text("#!/bin/sh\nsed -i \"s/md5: .*/md5: '$(cat NEXT)'/\" dvc.lock\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin")
    Path("dvc.lock").write_text(yaml.dump(lock(a="1")))
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@t"]
    for words in (["init", "-q"], ["add", "dvc.lock"], ["commit", "-qm", "run"]):
        subprocess.run([*git, *words], check=True)
    return tmp_path


@pytest.mark.parametrize(("md5", "status", "word"), [("1", 0, SAME), ("2", 1, DIFFERS)])
def test_the_command_compares_with_a_commit_after_the_run(repository, monkeypatch, capfd, md5, status, word):
    Path("NEXT").write_text(md5)
    monkeypatch.setattr(sys, "argv", ["neutral", "HEAD"])
    assert neutral.main() == status
    assert f"{word:<18} artifacts/train/a" in capfd.readouterr().out


def test_a_revision_without_a_run_is_a_sentence(repository):
    with pytest.raises(InputError, match=r"nowhere: no commit with a dvc\.lock"):
        neutral.committed("nowhere")
