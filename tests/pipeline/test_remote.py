"""Two people and a remote: what one has run, the other does not run again. Commands are those of docs/remote.md.

The remote is a folder; and a server that speaks S3, moto's, where it and dvc-s3 are installed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import clones
import pytest
from clones import NEW, OLD, OTHER, printed, reproduce

from fairway.report import revisions

pytestmark = pytest.mark.slow
KEYS = {"access_key_id": "a-key", "secret_access_key": "a-secret"}
S3 = "needs what is in requirements-s3.txt: make test-slow"


class People(NamedTuple):
    first: Path  # has run the pipeline
    second: Path  # has a clone without artifacts
    origin: Path  # git's remote
    keys: dict[str, str]  # of DVC's remote


@pytest.fixture(scope="module")
def bucket() -> Iterator[tuple[str, str]]:
    """The address of an empty bucket and that of its server."""
    pytest.importorskip("dvc_s3", reason=S3)
    server = pytest.importorskip("moto.server", reason=S3).ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    import boto3

    names = dict(zip(("aws_access_key_id", "aws_secret_access_key"), KEYS.values(), strict=True))
    boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **names).create_bucket(Bucket="fairway")
    yield "s3://fairway/store", endpoint
    server.stop()


@pytest.fixture(scope="module", params=["folder", "s3"])
def people(request, tmp_path_factory) -> People:
    """The first has pushed the trunk."""
    place = tmp_path_factory.mktemp(request.param)
    first = clones.copy(clones.trunk(tmp_path_factory), place / "first")
    if request.param == "s3":
        url, endpoint = request.getfixturevalue("bucket")
        printed(first, "dvc", "remote", "add", "-d", "storage", url)
        printed(first, "dvc", "remote", "modify", "storage", "endpointurl", endpoint)
    else:
        printed(first, "dvc", "remote", "add", "-d", "storage", str(place / "storage"))
    clones.commit(first, "a remote")
    printed(place, "git", "clone", "-q", "--bare", "first", "origin")
    printed(first, "git", "remote", "add", "origin", str(place / "origin"))
    printed(first, "git", "fetch", "-q")
    printed(first, "git", "branch", "-q", "--set-upstream-to", "origin/main")
    keys = KEYS if request.param == "s3" else {}
    log_in(first, keys)
    assert "files pushed" in printed(first, "dvc", "push", "--run-cache")
    return People(first, cloned(place / "origin", place / "second", keys), place / "origin", keys)


def log_in(folder: Path, keys: dict[str, str]) -> None:
    for name, value in keys.items():
        printed(folder, "dvc", "remote", "modify", "--local", "storage", name, value)


def cloned(origin: Path, folder: Path, keys: dict[str, str]) -> Path:
    printed(origin, "git", "clone", "-q", ".", str(folder))
    log_in(folder, keys)
    return folder


def certificate(folder: Path) -> dict:
    return json.loads((folder / "artifacts/certify/certificate.json").read_text(encoding="utf-8"))


def test_what_one_has_run_the_other_pulls(people):
    assert not (people.second / "artifacts").exists()
    printed(people.second, "dvc", "pull", "--run-cache")
    assert reproduce(people.second) == []
    assert "up to date" in printed(people.second, "dvc", "status")
    assert certificate(people.second) == certificate(people.first)
    assert printed(people.second, "git", "status", "--porcelain") == ""


def test_what_the_other_changes_comes_back(people):
    clones.set_param(people.second, OTHER, NEW)
    assert reproduce(people.second) == clones.LATE
    clones.commit(people.second, "another rate")
    printed(people.second, "git", "push", "-q")
    printed(people.second, "dvc", "push", "--run-cache")

    printed(people.first, "git", "pull", "-q")
    printed(people.first, "dvc", "pull")
    assert reproduce(people.first) == []
    assert certificate(people.first) == certificate(people.second)


def test_a_third_takes_runs_and_hands_on_an_experiment(people, tmp_path, monkeypatch):
    third = cloned(people.origin, tmp_path / "third", people.keys)
    clones.set_param(third, OTHER, OLD)  # as it was two commits ago
    assert reproduce(third, "--pull") == ["report"]  # the others were run once, by somebody
    printed(third, "dvc", "exp", "save", "-n", "as-before")
    printed(third, "dvc", "exp", "push", "origin", "as-before")

    printed(people.first, "dvc", "exp", "pull", "origin", "as-before")
    monkeypatch.chdir(people.first)
    head, before = revisions.read("HEAD"), revisions.read("as-before")
    assert (head.params[OTHER], before.params[OTHER]) == (NEW, OLD)
    assert before.metrics == revisions.read("HEAD~1").metrics != head.metrics


def test_keys_stay_out_of_git(people):
    for folder in people.first, people.second:
        assert "a-secret" not in printed(folder, "git", "log", "-p", "--all", "--", ".dvc")
        assert printed(folder, "git", "status", "--porcelain") == ""
