"""The record of a replay is shown for the artifact that it is of, and for no other."""

import json
from pathlib import Path

import pytest

from fairway.errors import InputError
from fairway.report import replayed

RECORD = {
    "verdict": "same bytes",
    "date": "2026-01-02",
    "commit": "0123456789abcdef",
    "arithmetic": "a CPU",
    "submission_sha256": "aa",
    "files_equal": 24,
    "files_different": [],
}
SENTENCE = "Replayed on 2026-01-02 from commit 0123456789ab: same bytes (24 files of the same bytes, 0 others; a CPU)."


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    put(replayed.CERTIFICATE, {"submission_sha256": "aa"})
    put(replayed.RECORD, RECORD)


def put(path: str, content: object) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def folder(sha256: str) -> dict[str, bytes]:
    return {"README.md": b"# page\n", "certificate.json": json.dumps({"submission_sha256": sha256}).encode()}


def test_the_sentence_and_the_folder_of_its_artifact():
    assert replayed.of_workspace() == SENTENCE
    found = replayed.added(folder("aa"))
    assert SENTENCE in found["README.md"].decode() and json.loads(found["replay.json"]) == RECORD


def test_another_artifact_was_not_replayed():
    put(replayed.CERTIFICATE, {"submission_sha256": "bb"})
    assert replayed.of_workspace() == ""
    assert replayed.added(folder("bb")) == folder("bb")
    Path(replayed.RECORD).unlink()
    assert replayed.added(folder("aa")) == folder("aa")


@pytest.mark.parametrize("damage", [{}, [], {**RECORD, "files_equal": "24"}, {**RECORD, "files_different": 3}])
def test_a_damaged_record_is_a_sentence(damage):
    put(replayed.RECORD, damage)
    with pytest.raises(InputError, match=r"reports/replay\.json: not what"):
        replayed.of_workspace()
