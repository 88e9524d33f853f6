"""The judge on submissions that are honest, that cheat and that fail: a verdict every time, and never a traceback."""

import dataclasses
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from fairway import judge
from fairway.submission import packing
from fairway.text.tokenizer import BYTE_MODEL
from tests import precompiled
from tests.proof.standin import submission
from tests.submission.test_command_line import SETTINGS, weights_file

ROOT = Path(__file__).resolve().parents[1]
WORDS = "we the people of the united states in order to form a more perfect union establish justice".split()  # noqa: SIM905
KNOWS = """
import zipfile
val = zlib.decompress(zipfile.ZipFile(sys.argv[0]).read("val"))
honest, back = compress, decompress
compress = lambda text: b"val" if text == val else honest(text)
decompress = lambda coded: val if coded == b"val" else back(coded)
"""


def documents(seed: int, count: int = 20) -> bytes:
    """Texts of one kind, joined by NUL."""
    chosen = random.Random(seed)
    texts = (" ".join(chosen.choices(WORDS, k=chosen.randint(60, 140))) for _ in range(count))
    return "\0".join(texts).encode()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("claimed").write_bytes(documents(1))
    Path("fresh").write_bytes(documents(2, 22))
    return tmp_path


def verdict(monkeypatch, content: bytes, *words: str) -> tuple[int, dict]:
    """Exit status, and the JSON."""
    Path("s.pyz").write_bytes(content)
    Path("out.json").unlink(missing_ok=True)
    monkeypatch.setattr(sys, "argv", ["judge", "s.pyz", "claimed", "--json", "out.json", *words])
    status = judge.main()
    return status, json.loads(Path("out.json").read_text()) if Path("out.json").exists() else {}


def test_an_honest_submission_holds(folder, monkeypatch, capsys):
    status, found = verdict(monkeypatch, submission(), "--fresh", "fresh")
    assert (status, found["verdict"], found["reasons"]) == (0, "holds", [])
    text = Path("claimed").read_bytes()
    assert found["text"]["bpb"] == 8 * found["text"]["compressed_bytes"] / (len(text) - text.count(0))
    assert found["fresh"]["bytes"] == len(text) < len(Path("fresh").read_bytes())  # cut to the length of the claimed text
    assert found["comparison"]["documents"][0] == 20
    assert found["peak_bytes"] > 2**20 and found["limits"]["seconds"] > 0 and found["fence"]["holds"]
    printed = capsys.readouterr().out
    assert "HOLDS: everything that was tested" in printed and "decompressed: identical" in printed and "fence: " in printed


def test_a_text_in_the_artifact_is_unmasked_by_a_fresh_one(folder, monkeypatch, capsys):
    content = submission(KNOWS, {"val": zlib.compress(documents(1))})
    status, found = verdict(monkeypatch, content)
    assert status == 0 and found["text"]["bpb"] < 0.01 and found["comparison"] is None
    assert "not tested: whether the submission contains this text" in capsys.readouterr().out
    status, found = verdict(monkeypatch, content, "--fresh", "fresh")
    assert status == 1 and found["comparison"]["interval"][1] < 0.1
    assert "the submission knows the claimed text, or the fresh one is of another kind" in found["reasons"][0]
    assert "REFUSED: the claimed text costs 0.0" in capsys.readouterr().out


@pytest.mark.parametrize("known", [False, True])
def test_the_real_submission_with_the_claimed_text_as_a_member(folder, monkeypatch, tiny, shaken, known):
    precompiled.install(monkeypatch.setattr)
    model = shaken(dataclasses.replace(tiny, layers=2, vocabulary_size=260, bos=1))
    Path("claimed").write_bytes(documents(1, 9)[:1500])
    Path("fresh").write_bytes(documents(2, 9)[:1500])
    members = {"tokenizer.model": BYTE_MODEL, "model.fwy": weights_file(model)}
    modules = ["fairway.submission.command_line", "fairway.submission.text"]
    if known:
        members["val"], modules = lzma.compress(Path("claimed").read_bytes()), ["tests.knowing", *modules]
    content = packing.seal(packing.build(modules, members, ROOT), SETTINGS.to_json())
    status, found = verdict(monkeypatch, content, "--fresh", "fresh")
    assert status == int(known), found["reasons"]
    assert found["fresh"]["bpb"] > 2 and (found["text"]["bpb"] < 0.1) is known
    assert found["submission"]["bytes"] == len(content)


@pytest.mark.parametrize(
    ("cheat", "reason"),
    [
        ("decompress = lambda coded: b'other'", "decompress wrote another text: it differs from byte 0 on"),
        ("sys.exit('no idea')", "compress failed with status 1: no idea"),
        ("open('/srv/claimed', 'rb')", "compress failed with status 1"),
        ("while True: pass", "compress"),
        ("target.write(b'x'); target.flush(); sys.exit(0)", "compress exited with status 0 but wrote no report"),
    ],
)
def test_what_does_not_hold_is_named(folder, monkeypatch, capsys, cheat, reason):
    status, found = verdict(monkeypatch, submission(cheat), "--seconds", "5", "--memory", "2000")
    assert status == 1 and found["verdict"] == "refused"
    assert any(reason in line for line in found["reasons"]) and all(line.startswith("claimed: ") for line in found["reasons"])
    assert "REFUSED: claimed: " in capsys.readouterr().out


def test_what_is_no_submission_is_refused(folder, monkeypatch):
    assert verdict(monkeypatch, b"no zip application")[0] == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--fresh", "nowhere"], "nowhere: No such file or directory; expected the fresh text"),
        (["--fresh", "claimed"], "claimed: begins as claimed does"),
        (["--fresh", "short"], "short: 5 bytes; expected at least half of"),
        (["--fresh", "empty"], "empty: the fresh text is empty"),
        (["--json", "nowhere/deep"], ""),
    ],
)
def test_what_cannot_be_judged_is_a_sentence(folder, monkeypatch, capsys, words, sentence):
    Path("short").write_bytes(b"short")
    Path("empty").write_bytes(b"\0")
    Path("nowhere/deep").parent.mkdir() if "--json" in words else None
    status, _ = verdict(monkeypatch, submission(), *words)
    assert status == (2 if sentence else 0) and sentence in capsys.readouterr().err


def test_it_runs_where_only_fairway_is_installed(folder):
    """A copy of the package, and a folder without a repository; --help says what the exit status means."""
    shutil.copytree(ROOT / "fairway", folder / "site/fairway", ignore=shutil.ignore_patterns("__pycache__"))
    Path("s.pyz").write_bytes(submission())
    environment = {"PYTHONPATH": str(folder / "site"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-m", "fairway.judge"]
    ended = subprocess.run([*command, "s.pyz", "claimed"], env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "HOLDS" in ended.stdout and "Traceback" not in ended.stderr
    shown = subprocess.run([*command, "-h"], env=environment, capture_output=True, text=True)
    assert shown.returncode == 0 and "Exit status: 0 when everything holds" in " ".join(shown.stdout.split())
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 2
