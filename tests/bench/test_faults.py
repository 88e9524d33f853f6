"""The fault harness without its pipeline: what it compares, when it kills, what it prints and what it has the user type."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from bench.faults import __main__ as faults
from bench.faults import disk, kills
from bench.faults.pipeline import REMEDIES, STAGES, Pipeline, Trial, differences, digest
from fairway.params import read_yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = {"artifacts/train/a": b"ab", "artifacts/train/deep/b": b"", "reports/train/timing.json": b'{"seconds": 1.25}\n'}


@pytest.fixture
def pipeline(tmp_path) -> Pipeline:
    """Three files that pass for an undisturbed run's."""
    for name, content in FILES.items():
        put(Pipeline(tmp_path, {}), name, content)
    return Pipeline(tmp_path, Pipeline(tmp_path, {}).hashes())


def put(pipeline: Pipeline, name: str, content: bytes) -> None:
    path = pipeline.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_what_has_not_changed_does_not_differ(pipeline):
    assert sorted(pipeline.clean) == sorted(FILES) and differences(pipeline.hashes(), pipeline.clean) == []


def test_a_changed_byte_a_missing_and_another_file_are_seen(pipeline):
    put(pipeline, "artifacts/train/a", b"aB")
    (pipeline.folder / "artifacts/train/deep/b").unlink()
    put(pipeline, "artifacts/c", b"")
    assert differences(pipeline.hashes(), pipeline.clean) == [
        "artifacts/train/deep/b is missing",
        "artifacts/c is there besides",
        "artifacts/train/a has other bytes",
    ]


def test_of_files_with_times_everything_but_numbers_counts(pipeline):
    put(pipeline, "reports/train/timing.json", b'{"seconds": 31.5}\n')
    assert differences(pipeline.hashes(), pipeline.clean) == []
    put(pipeline, "reports/train/timing.json", b'{"seconds": 31.5')
    assert differences(pipeline.hashes(), pipeline.clean) == ["reports/train/timing.json has other bytes"]
    assert digest("artifacts/train/a", b"1") != digest("artifacts/train/a", b"2")


def test_after_a_kill_a_file_may_be_absent_or_under_another_name_but_not_half(pipeline):
    (pipeline.folder / "artifacts/train/deep/b").unlink()
    put(pipeline, "artifacts/train/.a.4711.partial", b"a")
    assert kills.half(pipeline) == []
    put(pipeline, "artifacts/train/a", b"a")
    put(pipeline, "reports/train/loss.tsv", b"step\tloss\n1\t5.")
    assert kills.half(pipeline) == [
        "after a kill artifacts/train/a has other bytes",
        "after a kill reports/train/loss.tsv is cut off",
    ]


def test_plans_come_from_the_seed_and_reach_all_targets():
    plans = [kills.plan(0, number) for number in range(300)]
    assert plans == [kills.plan(0, number) for number in range(300)]
    assert plans != [kills.plan(1, number) for number in range(300)]
    for first in range(0, 280, len(kills.TARGETS)):
        assert Counter(plan.target for plan in plans[first : first + len(kills.TARGETS)]) == Counter(kills.TARGETS)
    assert {plan.target for plan in plans[:30]} >= set(STAGES)
    assert {name for plan in plans for name in plan.signals} == set(kills.SIGNALS)
    assert {len(plan.signals) for plan in plans} == {1, 2, 3} and {plan.follow for plan in plans} == {True, False}


def test_moments_are_spread_evenly():
    moments = [moment for number in range(1000) for moment in kills.plan(0, number).moments]
    counts = Counter(int(10 * moment) for moment in moments)
    assert counts.keys() == set(range(10)) and min(counts.values()) > 0.7 * len(moments) / 10


def test_a_plan_in_words():
    plan = kills.Plan("quant", ("SIGKILL", "SIGINT"), (0.25, 0.5), True)
    assert str(plan) == "quant and what follows: SIGKILL at 25%, SIGINT at 50%"


def test_every_stage_meets_a_full_disk_and_every_folder_is_locked(pipeline, capsys):
    for mounting in (True, False):
        jobs = disk.faults(pipeline, disk.random.Random(0), mounting)
        asked = Counter(job.func for job in jobs)
        assert {job.args[1] for job in jobs if job.func is disk.full} == set(STAGES)
        assert asked[disk.locked] == (len(disk.LOCKS) if mounting else 0) and asked[disk.both] == disk.PAIRS
        assert asked[disk.orphaned] == 2
    assert "may not mount" in capsys.readouterr().out


def test_a_stage_that_never_ran_is_nowhere(pipeline):
    """One with a folder for an output, which DVC's cache has as a list of files; the other stage keeps everything."""
    listed = json.dumps([{"md5": "c" * 32, "relpath": "b"}]).encode()
    objects = {"aa/" + "a" * 30 + ".dir": listed, "cc/" + "c" * 30: b"", "dd/" + "d" * 30: b""}
    runs = {f"runs/{name}/key/value": f"cmd: python -m stages.{name}\n".encode() for name in ("train", "quant")}
    outs = {"train": ("artifacts/train/deep", "a" * 32 + ".dir"), "quant": ("artifacts/train/a", "d" * 32)}
    stages = {name: {"outs": [{"path": path, "md5": md5}]} for name, (path, md5) in outs.items()}
    kept = {f".dvc/cache/files/md5/{name}": content for name, content in objects.items()}
    kept |= {f".dvc/cache/{name}": content for name, content in runs.items()}
    for name, content in (kept | {"dvc.lock": json.dumps({"schema": "2.0", "stages": stages}).encode()}).items():
        put(pipeline, name, content)
    pipeline.forget(["train"])
    assert list(read_yaml(pipeline.folder / "dvc.lock")["stages"]) == ["quant"]
    assert differences(pipeline.hashes(), pipeline.clean) == ["artifacts/train/deep/b is missing"]
    assert [name for name in kept if (pipeline.folder / name).exists()] == [
        ".dvc/cache/files/md5/dd/" + "d" * 30,
        ".dvc/cache/runs/quant/key/value",
    ]
    assert not (pipeline.folder / ".dvc/cache/runs/train/key").exists()  # empty, it would stop DVC


TRIALS = [
    Trial("killed in train", "kill0: train: SIGINT at 10%", "the same bytes", True),
    Trial("killed in train", "kill1: train: SIGKILL at 20%", "artifacts/train/a is missing", False),
    Trial("disk full", "disk3: quant, 0 bytes left in artifacts", "then the same bytes", True),
    Trial("damaged file, its reader run", "x", "a traceback", False),
]


def test_the_table_has_a_row_a_kind():
    assert faults.table(TRIALS).splitlines()[2:] == [
        "| killed in train | 2 | 1 |",
        "| disk full | 1 | 1 |",
        "| damaged file, its reader run | 1 | 0 |",
        "",
    ]


def test_what_is_lost_says_how_to_see_it_again():
    first, second = faults.lost(TRIALS, 5).splitlines()[2:4]
    assert first.endswith("artifacts/train/a is missing (`python -m bench.faults --seed 5 --only kill1`)")
    assert second.endswith("a traceback (`python -m bench.faults --seed 5 --kills 0`)")
    assert faults.lost(TRIALS[:1], 5) == ""
    assert faults.parse(["--seed", "5", "--only", "kill1"]).only == "kill1"


def test_figures_are_numbers_by_name():
    lines = faults.figures(TRIALS, Counter(signals=3)).splitlines()
    found = dict(re.fullmatch(r"figure faults\.(\w+) = (\d+)", line).groups() for line in lines)
    assert found["kills"] == "2" and found["kills_survived"] == "1" and found["signals"] == "3"
    assert found["corruptions_survived"] == "0" and found["locked_folders"] == "0"


def test_the_page_has_every_sentence_and_every_remedy():
    page = (ROOT / "docs/faults.md").read_text(encoding="utf-8")
    assert [text for pair in REMEDIES.items() for text in pair if text not in page] == []
