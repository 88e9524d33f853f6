"""Sweeps as docs/sweeps.md has them, on a clone of the pipeline and on a repository of one short stage."""

import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import clones
import pytest
from clones import printed, run

from fairway.report import compare, revisions

PAGE = (clones.ROOT / "docs/sweeps.md").read_text(encoding="utf-8")
SIDE_BY_SIDE = re.search(r"```bash\n(printf .*?)^python", PAGE, re.MULTILINE | re.DOTALL)[1]
NEGATIVE = "error: ngram.learning_rate must be at least 0"
PATIENCE = 300  # seconds


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Iterator[Path]:
    """A repository of one stage. Its workers are told to go at the end."""
    folder = clones.one_stage(tmp_path_factory.mktemp("short"))
    yield folder
    run(folder, "dvc", "queue", "stop")


def wait_for(folder: Path, *names: str) -> None:
    """Until these experiments of the queue are there. Asked of git: on a busy machine `dvc queue status` may end a worker."""
    for second in range(PATIENCE):
        if set(names) <= set(printed(folder, "git", "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps").split()):
            return
        if second % 60 == 59:  # one that has left too early, maybe
            printed(folder, "dvc", "queue", "start", "-j", "1")
        time.sleep(1)
    pytest.fail(printed(folder, "dvc", "queue", "status"))


def status(folder: Path) -> dict[str, str]:
    """Of each run of the queue, by its name."""
    return dict(re.findall(r"^\w{7}\s+(\S+) .*\b(\w+)$", printed(folder, "dvc", "queue", "status"), re.MULTILINE))


def metrics(folder: Path, names: list[str], monkeypatch) -> list[dict]:
    monkeypatch.chdir(folder)
    return [revisions.read(name).metrics for name in names]


def test_the_grid_of_the_page_runs_two_at_a_time_each_on_a_gpu_of_its_own(short, monkeypatch):
    printed(short, "bash", "-c", SIDE_BY_SIDE)
    names = [f"rate-{rate}-seed-{seed}" for rate in (0.002, 0.006) for seed in (1, 2, 3)]
    found = metrics(short, names, monkeypatch)
    assert [run["val_bpb"] for run in found] == pytest.approx([0.003, 0.004, 0.005, 0.007, 0.008, 0.009])
    assert {run["gpu"] for run in found} == {"0", "1"}
    for gpu in "01":
        spans = sorted(run["span"] for run in found if run["gpu"] == gpu)
        assert len(spans) >= 2 and all(first[1] <= second[0] for first, second in itertools.pairwise(spans))
    shown = compare.page([revisions.read(name) for name in names[3:] + names[:3]])
    assert "0.0083 nats per token better, p = 0.004 that it is no better" in shown


def test_side_by_side_a_run_that_fails_stops_no_other(short, monkeypatch):
    finished = run(short, "bash", "-c", SIDE_BY_SIDE.replace("0.002,0.006", "-1,2").replace("{1,2,3}", "{1,2}"))
    assert finished.returncode == 123
    assert finished.stderr.count(NEGATIVE) == 2
    assert [run["val_bpb"] for run in metrics(short, ["rate-2-seed-1", "rate-2-seed-2"], monkeypatch)] == [2.001, 2.002]


def test_in_the_queue_a_run_that_fails_stops_no_other(short, monkeypatch):
    printed(short, "dvc", "exp", "run", "--queue", "-n", "rate", "-S", "ngram.learning_rate=-1,2")
    printed(short, "dvc", "queue", "start", "-j", "1")
    wait_for(short, "rate-2")
    assert status(short)["rate-1"] == "Failed"
    assert NEGATIVE in printed(short, "dvc", "queue", "logs", "rate-1")
    assert "rate-1" not in printed(short, "dvc", "exp", "list", "--name-only").split()
    assert metrics(short, ["rate-2"], monkeypatch)[0]["val_bpb"] == 2.001


def test_a_run_sees_what_git_tracks(short, monkeypatch):
    (short / "bonus.txt").write_text("5")
    printed(short, "dvc", "exp", "run", "--temp", "-n", "unknown-to-git", "-S", "ngram.learning_rate=2")
    printed(short, "git", "add", "bonus.txt")
    printed(short, "dvc", "exp", "run", "--temp", "-n", "added", "-S", "ngram.learning_rate=3")
    scores = [run["val_bpb"] for run in metrics(short, ["unknown-to-git", "added"], monkeypatch)]
    assert scores == [2.001, 8.001]


@pytest.mark.slow
def test_a_late_sweep_in_the_queue_leaves_the_trunk_alone(tmp_path, tmp_path_factory, monkeypatch):
    """Of the real pipeline; its results are those of the same params in the working tree."""
    folder = clones.copy(clones.trunk(tmp_path_factory), tmp_path / "fairway")
    printed(folder, "dvc", "exp", "run", "--queue", "-n", "rate", "-S", "ngram.learning_rate=0.25,0.5")
    assert "Started '2'" in printed(folder, "dvc", "queue", "start", "-j", "2")
    wait_for(folder, "rate-1", "rate-2")
    for name in ("rate-1", "rate-2"):
        assert clones.stages_in(printed(folder, "dvc", "queue", "logs", name)) == clones.LATE

    monkeypatch.chdir(folder)
    base, *swept = (revisions.read(name) for name in ("HEAD", "rate-1", "rate-2"))
    assert [run.params[clones.OTHER] for run in (base, *swept)] == [clones.OLD, 0.25, 0.5]
    assert len({run.metrics["val_bpb"] for run in (base, *swept)}) == 3
    assert len({run.metrics["val_bpb_ttt"] for run in (base, *swept)}) == 1
    printed(folder, "dvc", "exp", "apply", "rate-1")
    scores = folder / "artifacts/eval_ngram/scores.npy"
    of_the_queue = scores.read_bytes()
    assert clones.reproduce(folder, "--force", "--single-item", "eval_ngram") == ["eval_ngram"]
    assert scores.read_bytes() == of_the_queue
    run(folder, "dvc", "queue", "stop")
