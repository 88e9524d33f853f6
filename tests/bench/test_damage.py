"""Damaged files without the pipeline: what a damage does, that every reader meets every one, and what is a good outcome."""

import os
from itertools import islice
from pathlib import Path
from random import Random

import pytest
import yaml

from bench.faults import damage, files, readers
from bench.faults.damage import DAMAGES, UNREAD, Pair
from bench.faults.files import ACCEPTED, BY_PYTHON, HARMLESS, NOT_LEGAL, REFUSED
from bench.faults.pipeline import Trial
from bench.faults.readers import Ended

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 2


@pytest.fixture
def path(tmp_path) -> Path:
    """A file that has another name too, as DVC's cache knows it."""
    (tmp_path / "cached").write_bytes(CONTENT)
    os.link(tmp_path / "cached", tmp_path / "file")
    return tmp_path / "file"


def test_a_cut_leaves_a_part(path):
    assert damage.cut(path, Random(1)) == "cut after 69 of 512 bytes"
    assert path.read_bytes() == CONTENT[:69]


def test_a_flip_changes_one_bit(path):
    assert damage.flip(path, Random(1)) == "bit 1 of byte 137 of 512 flipped"
    assert path.read_bytes() == CONTENT[:137] + bytes([137 ^ 2]) + CONTENT[138:]


def test_the_others_leave_nothing_or_something_else(path):
    assert damage.foreign(path, Random(1)) == "replaced by a picture"
    assert path.read_bytes() == damage.FOREIGN["a picture"]
    assert damage.empty(path, Random(1)) == "emptied" and path.read_bytes() == b""
    assert damage.folder(path, Random(1)) == "replaced by a folder" and path.is_dir()
    path.rmdir()
    path.touch()
    assert damage.gone(path, Random(1)) == "taken away" and not path.exists()


@pytest.mark.parametrize("way", DAMAGES)
def test_the_file_in_the_cache_stays_as_it_is(path, way):
    way(path, Random(0))
    assert path.with_name("cached").read_bytes() == CONTENT


def test_every_reader_meets_every_damage_once_in_six_turns():
    pairs = [Pair(f"-m {name}", name) for name in "abcde"]
    first, again = (list(islice(damage.plan(pairs, Random(3)), 30)) for _ in range(2))
    assert first == again != list(islice(damage.plan(pairs, Random(4)), 30))
    assert len(set(first)) == 30
    for turn in range(6):
        assert {pair for pair, _ in first[5 * turn : 5 * turn + 5]} == set(pairs)


@pytest.fixture
def equipped(tmp_path) -> Path:
    """A folder with a file for every dependency, and what trials add."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for dep in {dep for stage in stages.values() for dep in stage["deps"]} - {"data"}:
        split = dep.startswith("artifacts/tokenize/") and "." not in dep
        path = tmp_path / dep / "a.bin" if split else tmp_path / dep
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    damage.equip(tmp_path)
    (tmp_path / ".ckpt/train/key").mkdir(parents=True)
    (tmp_path / ".ckpt/train/key/step1.rank0of1.pt").touch()
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    return tmp_path


def test_every_file_that_a_stage_reads_is_damaged(equipped):
    pairs = damage.pairs(equipped)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        read = [pair.path for pair in pairs if pair.command == f"-m stages.{name}"]
        for dep in stage["deps"]:
            if dep.startswith(("artifacts", "reports")) and (name, dep) not in UNREAD:
                assert dep in read or f"{dep}/a.bin" in read
    made = [pair.path for pair in pairs if pair.path.startswith(("formats", "theirs", ".ckpt"))]
    assert len(made) == 9 and all((equipped / path).is_file() for path in made)
    kinds = {Path(pair.path).suffix.removeprefix(".") for pair in pairs}
    texts, tables, others = "jsonl zst gz txt parquet", "npy json tsv yaml lock", "bin model safetensors fwy pyz fwt pt"
    assert kinds >= {*texts.split(), *tables.split(), *others.split()}


def test_documents_of_every_format_are_the_same(equipped):
    from fairway.text.documents import read_documents

    texts = [sorted(read_documents([str(equipped / "formats" / name)], "text")) for name in (*damage.DOCUMENTS[:4], "texts/*")]
    assert len(texts[0]) == 60 and all(other == texts[0] for other in texts)


PAIR = Pair("-m stages.train", "artifacts/tokenize/train/a.bin")
WHOLE = {"artifacts/tokenize/train/a.bin": "1", "artifacts/train/ledger.json": "2"}
DAMAGED, OTHER = WHOLE | {PAIR.path: "9"}, WHOLE | {"artifacts/train/ledger.json": "3"}
SENTENCE = "error: artifacts/tokenize/train/a.bin: 3 bytes; fetch the file again\n"


@pytest.mark.parametrize(
    ("ended", "after", "outcome"),
    [
        (Ended(1, "", SENTENCE), DAMAGED, REFUSED),
        (Ended(1, "", "error: artifacts/tokenize/train: no token shard\n"), DAMAGED, REFUSED),
        (Ended(0, "", ""), DAMAGED, HARMLESS),
        (Ended(0, "", ""), OTHER, ACCEPTED),
        (Ended(0, "FAILS: a claim\n", ""), WHOLE | {files.CERTIFICATE: "4"}, NOT_LEGAL),
    ],
)
def test_good_outcomes(ended, after, outcome):
    assert files.judged(ended, PAIR, DAMAGED, after, WHOLE) == (outcome, True)


@pytest.mark.parametrize(
    ("ended", "after", "words"),
    [
        (Ended(1, "", SENTENCE), OTHER, "something is left: artifacts/train/ledger.json has other bytes"),
        (Ended(1, "", SENTENCE), WHOLE | {"artifacts/.train.4711": "5"}, "something is left: artifacts/.train.4711 is there"),
        (Ended(1, "", "Traceback (most recent call last):\n  …\n"), DAMAGED, "a traceback"),
        (Ended(1, "", SENTENCE + SENTENCE), DAMAGED, "status 1 and not one sentence"),
        (Ended(2, "", SENTENCE), DAMAGED, "status 2 and not one sentence"),
        (Ended(1, "", "error: a file is damaged\n"), DAMAGED, "the file is not named"),
        (Ended(0, "", "RuntimeWarning: overflow\n"), DAMAGED, "status 0 and not one sentence"),
        (Ended(None, "", ""), DAMAGED, "no end after 120 s"),
    ],
)
def test_bad_outcomes(ended, after, words):
    outcome, survived = files.judged(ended, PAIR, DAMAGED, after, WHOLE)
    assert outcome.startswith(words) and not survived


@pytest.mark.parametrize(
    ("path", "said", "named"),
    [
        ("a/b.json", "error: a/b.json: missing\n", True),
        ("a/b.json", "error: a: no file\n", True),
        ("a/b.json", "error: data.documents: no file matches 'a/*.json'\n", True),
        ("a/b.json", "error: b.json: missing\n", False),
        ("params.yaml", "error: train.steps 3 is too few\n", True),
        ("params.yaml", "error: training fails\n", False),
        ("a/b.json", "error: train.steps 3 is too few\n", False),
    ],
)
def test_what_names_a_file(path, said, named):
    assert files.named(path, said) is named


def test_what_python_says_of_a_damaged_program_is_no_fault():
    program = Pair("a.pyz score text", "a.pyz")
    said = Ended(1, "", "SyntaxError: source code cannot contain null bytes\n")
    assert files.judged(said, program, {}, {}, {}) == (BY_PYTHON, True)
    assert not files.judged(said, program, {}, {"out": "1"}, {})[1]
    assert not files.judged(said, Pair("a.pyz score text", "text"), {}, {}, {})[1]


def test_what_is_accepted_is_listed():
    trials = [Trial(files.READ, f"file {n}", outcome, True) for n, outcome in enumerate((REFUSED, ACCEPTED, REFUSED))]
    page = files.accepted([*trials, Trial(files.REPEATED, "file 9", files.RESTORED, True)])
    assert page.startswith("Of the readers of damaged files: 2 refused, 1 accepted.") and page.endswith(":\n\n- file 1\n")


def test_sources_come_first_and_keep_their_bits():
    class Pipeline:
        clean = dict.fromkeys((f"artifacts/{n}" for n in range(30)), "")

    chosen = files.outs(Pipeline, 20, Random(0))
    assert [path for path, _ in chosen[:4]] == list(files.SOURCES) and len(dict(chosen)) == 20
    assert all(way is not damage.flip for _, way in chosen[:4])


def test_a_round_trip_is_done_once(tmp_path):
    calls = []
    look = readers.remembered(lambda *texts: calls.append(texts) or len(calls), tmp_path)
    assert [look(b"a", b"bc"), look(b"a", b"bc"), look(b"ab", b"c"), look(b"a", b"bc")] == [1, 1, 2, 1]


def test_forked_and_plain_are_the_same(tmp_path, monkeypatch):
    """Status, both streams and the folder; the warm process imports nothing beforehand here, which takes seconds."""
    monkeypatch.setattr(readers, "server", lambda: readers.multiprocessing.get_context("forkserver"))
    for name in ("fairway", "stages"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "params.yaml").write_text("tokenize: {}\nttt: {}\nttu: {}\n")
    said = readers.forked(tmp_path, "-m fairway.sections", tmp_path / "desk")
    assert said == readers.plainly(tmp_path, "-m fairway.sections")
    assert (said.status, said.out) == (1, "") and said.err.startswith(
        "error: params.yaml: unknown section 'ttu'; valid sections"
    )
