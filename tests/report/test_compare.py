"""Revisions in a small repository with the files that a run commits, and no DVC."""

import csv
import io
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from fairway.errors import InputError
from fairway.report import compare, revisions
from fairway.report.revisions import Revision
from fairway.report.significance import welch

ROOT = Path(__file__).resolve().parents[2]
MINUS = "\N{MINUS SIGN}"
BASELINE = "1" * 40


def put(bpb: float, seed: int = 1337, bits: int = 6, code: str = "a1", **more) -> None:
    """The files of one run, in the current folder."""
    for folder in ("reports/report", "fairway"):
        Path(folder).mkdir(parents=True, exist_ok=True)
    summary = {"val_bpb": bpb, "val_bpb_ttt": bpb + 0.125, "val_bpb_ngram": bpb, "artifact_bytes": 1000 * bits, "legal": True}
    summary["certified_tokens"] = 1000
    Path("reports/summary.json").write_text(json.dumps(summary | more))
    Path("reports/report/stages.json").write_text(json.dumps({"tokenize": {"val_bytes": 3000, "val_tokens": 1001}}))
    deps = [{"path": "fairway/lm/model.py", "md5": code}, {"path": "artifacts/train", "md5": str(seed)}]
    stages = {
        "train": {"params": {"params.yaml": {"train": {"seed": seed, "steps": 9, "lr": 1e-05}}}, "deps": deps},
        "quant": {"params": {"params.yaml": {"quant": {"bits": bits}, "compress.coder": "range"}}},
        "report": {"deps": [{"path": "fairway/report/page.py", "md5": str(bpb)}]},
    }
    Path("dvc.lock").write_text(yaml.dump({"stages": stages}).replace("1.0e-05", "1e-05"))  # as DVC writes it


def git(*words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()


def commit() -> str:
    git("add", "-A")
    git("commit", "-qm", "a run")
    return git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path, monkeypatch) -> None:
    """A commit without a report (tag bare), three runs (tags one, two, three), the last also an experiment, and edits."""
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    Path("readme").write_text("nothing yet")
    commit()
    git("tag", "bare")
    for name, run in (("one", (1.25, 1)), ("two", (1.5, 2)), ("three", (1.0, 1, 5))):
        put(*run)
        git("update-ref", f"refs/tags/{name}", commit())
    git("update-ref", f"refs/exps/11/{BASELINE[2:]}/sleek-gyps", "HEAD")
    git("update-ref", "refs/exps/exec/EXEC_BRANCH", "HEAD")
    git("update-ref", "refs/exps/stash", "HEAD")
    put(0.75, 1, 5, legal=False)
    Path("params.yaml").write_text("quant: {bits: 99}")  # edited, and not run


def run(name: str, bpb: float, seed: int = 1, code: str = "a1", **params) -> Revision:
    settings = {"train.seed": seed, "quant.bits": 6} | params
    metrics = {"val_bpb": bpb, "legal": True, "certified_tokens": 1000}
    return Revision(name, metrics, settings, (("fairway/lm/model.py", code),), 3000, 1000)


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {name: values for name, *values in lines}


def test_every_kind_of_name_finds_its_run(repository):
    names = ["one", git("rev-parse", "two"), "HEAD", "sleek-gyps", "workspace"]
    assert [revisions.read(name).metrics["val_bpb"] for name in names] == [1.25, 1.5, 1.0, 1.0, 0.75]


def test_metrics_and_params_side_by_side(repository):
    text = compare.page([revisions.read(name) for name in ("one", "three", "workspace")])
    found = rows(text)
    assert list(found)[:5] == ["metric", ":" + "-" * 17, "val_bpb", "val_bpb_ttt", "artifact_bytes"]
    assert found["metric"] == ["one", "three", "workspace"]
    assert found["val_bpb"] == ["1.2500", f"1.0000 ({MINUS}0.2500)", f"0.7500 ({MINUS}0.5000)"]
    assert found["artifact_bytes"] == ["6,000", f"5,000 ({MINUS}1,000)", f"5,000 ({MINUS}1,000)"]
    assert found["legal"] == ["proved", "proved", "refused"]
    assert "val_bpb of workspace is an estimate: not all of the validation text" in text
    assert found["quant.bits"] == ["6", "5", "5"]  # what ran, not what params.yaml says by now
    assert "train.steps" not in found and "train.seed" not in found and "val_bpb_ngram" not in found
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({len(line) for line in block.splitlines()}) == 1


def test_a_proof_in_part_and_those_of_older_runs_are_called_so(repository):
    put(0.75, 1, 5, legal=None, certified_tokens=7)
    old = run("old", 1.5)
    old.metrics["certified_tokens"] = 10
    text = compare.page([run("new", 1.25), old, revisions.read("workspace")])
    assert rows(text)["legal"] == ["proved", "in part", "in part"]
    assert "val_bpb of old, workspace is an estimate" in text
    old.metrics.pop("legal")
    assert rows(compare.page([run("new", 1.25), old]))["legal"] == ["proved", "—"]


def test_a_coded_size_is_shown_beside_the_sum_of_scores(repository):
    put(0.75, 1, 5, val_bpb_ngram=0.5)
    assert rows(compare.page([revisions.read("one"), revisions.read("workspace")]))["val_bpb_ngram"][0] == "1.2500"


def test_csv_keeps_all_digits(repository):
    found = list(csv.reader(io.StringIO(compare.table([revisions.read(name) for name in ("one", "three")]))))
    assert found[0] == ["name", "one", "three", "three - one"]
    assert ["val_bpb", "1.25", "1.0", "-0.25"] in found and ["legal", "true", "true", ""] in found
    assert ["quant.bits", "6", "5", "-1"] in found


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("sleek-gyp", "no such commit, branch, tag or experiment; the nearest name is 'sleek-gyps'"),
        ("bare", "it has no reports/summary.json, which a finished `dvc repro` writes and a commit keeps"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(repository, name, sentence):
    with pytest.raises(InputError) as error:
        revisions.read(name)
    assert str(error.value) == f"{name}: {sentence}"


def test_a_name_that_two_experiments_have_is_not_guessed(repository):
    git("update-ref", f"refs/exps/22/{BASELINE[2:]}/sleek-gyps", "one")
    with pytest.raises(InputError, match="2 experiments have that name"):
        revisions.read("sleek-gyps")


def test_without_git_there_is_a_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    put(1.5)
    assert revisions.read("workspace").metrics["val_bpb"] == 1.5
    with pytest.raises(InputError, match="git finds no revision but workspace: fatal: not a git repository"):
        revisions.read("HEAD")


def test_numbers_of_a_run(repository):
    one = revisions.read("one")
    assert one.params["train.lr"] == 1e-05
    assert one.nats_per_bit == pytest.approx(math.log(2) * 3000 / 1000)


def test_runs_that_differ_in_the_seed_only_are_a_group(repository):
    found = compare.groups([revisions.read(name) for name in ("one", "two", "three", "HEAD~2", "sleek-gyps")])
    assert [[revision.name for revision in group] for group in found] == [["one", "two"], ["three"]]
    other_code = [run("a", 1.0, 1), run("b", 1.0, 2, code="b2")]
    assert len(compare.groups(other_code)) == 2
    assert "b ran with other code or data than a: fairway/lm/model.py." in compare.notes(other_code)


def test_groups_are_tested_in_nats_a_token():
    before, after = [1.2501, 1.25, 1.2499], [1.2401, 1.24, 1.2399]
    found = [run(f"a{i}", bpb, i) for i, bpb in enumerate(before)]
    found += [run(f"b{i}", bpb, i, **{"quant.bits": 5}) for i, bpb in enumerate(after)]
    text = compare.page(found)
    unit = 3 * math.log(2)
    assert rows(text)["b0"] == ["3", "0, 1, 2", "1.24000", "0.00010", f"{1.24 * unit:.5f}", f"+{0.01 * unit:.4f}"]
    expected = welch([unit * x for x in before], [unit * x for x in after], 0.005)
    assert expected.p < 0.01
    assert f"shown (p = {expected.p:.2g})" in text and "not shown" not in text
    assert re.search(r"b0 against a0: 0\.0208 nats per token better", text)


def test_a_gain_within_the_margin_is_no_record():
    found = [run(f"a{i}", 1.25 + i / 1e4, i) for i in range(3)]
    found += [run(f"b{i}", 1.248 + i / 1e4, i, **{"quant.bits": 5}) for i in range(3)]
    assert "not shown" in compare.page(found)


def test_what_a_test_needs_is_said():
    alone = compare.page([run("a", 1.0), run("b", 0.9, **{"quant.bits": 5})])
    assert "No test: one seed each; run `dvc exp run --queue -S train.seed=1,2,3`" in alone
    half = compare.page([run("a", 1.0), run("a2", 1.01, 2), run("b", 0.9, **{"quant.bits": 5})])
    assert "b against a: no test, b has one seed" in half


def test_another_validation_text_is_named():
    other = Revision("b", {"val_bpb": 1.0}, {}, (("fairway/lm/model.py", "a1"),), 2999, 1000)
    assert any("do not compare" in note for note in compare.notes([run("a", 1.0), other]))


def test_the_command(repository):
    def command(*words):
        return subprocess.run(
            [sys.executable, "-m", "fairway.report", *words], env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    assert rows(command("compare").stdout)["metric"] == ["HEAD", "workspace"]
    failed = command("compare", "bare")
    assert failed.returncode == 1 and failed.stderr.startswith("error: bare: ") and failed.stderr.count("\n") == 1
