"""What people do every day, with the real DVC: change a param, run, look at what it did, commit; compare runs by name.

On a clone of the pipeline after its full run, and on a repository of one short stage.
"""

import csv
import json
import re
from pathlib import Path

import clones
import pytest
from clones import NEW, OLD, OTHER, printed

from fairway.report import compare, revisions

PAGE = (clones.ROOT / "docs/sweeps.md").read_text(encoding="utf-8")
SHORT_TABLE = re.search(r"^dvc exp show .*?(?= *#|$)", PAGE, re.MULTILINE)[0]


def output(folder: Path, *words: str) -> dict | list:
    return json.loads(printed(folder, *words, "--json"))


@pytest.fixture(scope="module")
def changed(tmp_path_factory) -> Path:
    """The trunk, then another param of eval_ngram, run and not yet committed."""
    folder = clones.copy(clones.trunk(tmp_path_factory), tmp_path_factory.mktemp("changed") / "fairway")
    clones.set_param(folder, OTHER, NEW)
    assert clones.reproduce(folder) == clones.LATE
    return folder


@pytest.fixture(scope="module")
def committed(changed) -> Path:
    clones.commit(changed, "another rate")
    return changed


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """A repository of one stage, tagged base; then an experiment with another rate and seed."""
    folder = clones.one_stage(tmp_path_factory.mktemp("short"))
    printed(folder, "git", "tag", "base")
    printed(folder, "dvc", "exp", "run", "-n", "quick-fox", "-S", "ngram.learning_rate=1.0", "-S", "train.seed=2")
    return folder


def test_before_the_commit_metrics_are_held_against_head(changed):
    old = json.loads(printed(changed, "git", "show", "HEAD:reports/summary.json"))["val_bpb"]
    new = json.loads((changed / "reports/summary.json").read_text(encoding="utf-8"))["val_bpb"]
    assert old != new
    shown = printed(changed, "dvc", "metrics", "diff")
    (line,) = re.findall(r"^reports/summary\.json +val_bpb +(.*)$", shown, re.MULTILINE)
    assert list(map(float, line.split())) == pytest.approx([old, new, new - old], abs=2e-5)
    assert output(changed, "dvc", "params", "diff") == {"params.yaml": {OTHER: {"old": OLD, "new": NEW, "diff": NEW - OLD}}}


def test_the_commit_takes_all_that_the_run_wrote(committed):
    assert printed(committed, "git", "status", "--porcelain") == ""
    assert "up to date" in printed(committed, "dvc", "status")


def test_after_the_commit_both_are_held_against_the_one_before(committed):
    metrics, params = (output(committed, "dvc", what, "diff", "HEAD~1") for what in ("metrics", "params"))
    assert metrics.keys() == {"reports/summary.json"}  # no metric is shown twice
    assert {"val_bpb", "certified_bpb"} <= metrics["reports/summary.json"].keys()
    assert params == {"params.yaml": {OTHER: {"old": OLD, "new": NEW, "diff": NEW - OLD}}}


def check_page_of_plots(folder: Path) -> None:
    """`dvc plots diff HEAD~1` writes a page whose every curve is there twice."""
    printed(folder, "dvc", "plots", "diff", "HEAD~1", "-o", "plots")
    page = (folder / "plots/index.html").read_text(encoding="utf-8")
    specs = [json.loads(spec) for spec in re.findall(r"^ *var spec = (\{.*\});$", page, re.MULTILINE)]
    assert len(specs) == 5
    for spec in specs:
        by_revision = [point["rev"] for point in spec["data"]["values"]]
        assert by_revision.count("HEAD~1") == by_revision.count("workspace") > 4


def test_a_page_of_plots_has_both_revisions(committed):
    check_page_of_plots(committed)


def test_a_clone_without_the_artifacts_compares_as_well(committed, tmp_path, monkeypatch):
    printed(tmp_path, "git", "clone", "-q", str(committed), "fresh")
    fresh = tmp_path / "fresh"
    assert output(fresh, "dvc", "metrics", "diff", "HEAD~1") == output(committed, "dvc", "metrics", "diff", "HEAD~1")
    check_page_of_plots(fresh)
    monkeypatch.chdir(fresh)
    before, after = revisions.read("HEAD~1"), revisions.read("HEAD")
    assert before.metrics["val_bpb"] != after.metrics["val_bpb"]
    assert compare.params([before, after]) == [(OTHER, [OLD, NEW])]
    assert compare.notes([before, after]) == []


def test_the_table_of_experiments_fits_on_a_screen(committed):
    """With the options of the page, without its way of sorting."""
    words = SHORT_TABLE.split(" --sort-by")[0].replace("'", "").split()
    header, *rows = csv.reader(printed(committed, *words, "--num", "2", "--csv").splitlines())
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    assert {"val_bpb", "certified_bpb", OTHER} <= columns.keys()
    assert len(columns) <= 12
    assert set(map(float, columns[OTHER])) == {OLD, NEW}


def test_an_experiment_is_compared_with_a_commit_by_name(short, monkeypatch):
    monkeypatch.chdir(short)
    base, found, now = (revisions.read(name) for name in ("base", "quick-fox", "workspace"))
    assert [revision.metrics["val_bpb"] for revision in (base, found, now)] == [1.251, 1.002, 1.002]
    assert found.params == {"train.seed": 2, "ngram.learning_rate": 1.0}
    assert [[r.name for r in group] for group in compare.groups([base, found, now])] == [["base"], ["quick-fox"]]
    assert "ngram.learning_rate" in compare.page([base, found])


def test_the_advice_on_seeds_is_a_command_that_dvc_takes(short):
    printed(short, *compare.SEEDS.split())
    assert printed(short, "dvc", "queue", "status").count("Queued") == 3
