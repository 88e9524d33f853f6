"""A submission folder made from a small repository with the files of a run; runs of two seeds are commits."""

import hashlib
import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.report import __main__ as command
from fairway.report import readme, submission
from fairway.submission import packing

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"author": "A", "github_id": "a", "name": "tree", "blurb": "New.", "date": "2026-01-02T03:04:05Z", "track": "t"}
SIZES = {"artifact_bytes": 1000, "headroom_bytes": 9000, "code_bytes": 300, "tokenizer_bytes": 100, "weights_bytes": 580}
CLAIM = {"claim": "the text comes back", "passed": True, "result": "identical"}
PARAMS = {"train": {"seed": 1, "steps": 9, "muon_lr": 1e-05}, "ttt": {"optimizer": "sgd"}, "quant": {"bits": 6}}


def put(path: str, content) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))


def put_run(bpb: float, seed: int, legal: bool = True, bits: int = 6) -> None:
    """All files that a submission is made from, in the current folder."""
    summary = {"val_bpb_float": bpb + 0.5, "val_bpb_ttt": bpb + 0.25, "artifact_bytes": 1000, "code_bytes": 300, "legal": legal}
    put("reports/summary.json", {"val_bpb": bpb, "val_bpb_ngram": bpb} | summary)
    put("reports/report/stages.json", {"tokenize": {"val_bytes": 3000, "val_tokens": 1001}, "train": {"train_loss": bpb}})
    put("reports/compress/metrics.json", SIZES)
    put("reports/report/certificate.md", "# Certificate\n")
    put("reports/train/loss.tsv", f"step\tloss\n1\t{seed}\n")
    for name in ("command_line", "text"):
        put(f"fairway/submission/{name}.py", f"# {name}\n")
    with zipfile.ZipFile(Path("artifacts/certify/submission.pyz"), "w") as archive:
        archive.writestr("seed", str(seed))
    artifact = Path("artifacts/certify/submission.pyz").read_bytes()
    reasons = [] if legal else ["causal: scores move"]
    certificate = {"legal": legal, "reasons": reasons, "claims": [CLAIM | {"passed": legal}]}
    put("artifacts/certify/certificate.json", certificate | {"submission_sha256": hashlib.sha256(artifact).hexdigest()})
    params = PARAMS | {"train": PARAMS["train"] | {"seed": seed}, "quant": {"bits": bits}}
    deps = [
        {"path": str(p), "md5": hashlib.md5(p.read_bytes()).hexdigest()} for p in sorted(Path().glob("fairway/submission/*.py"))
    ]
    put("dvc.lock", yaml.dump({"stages": {"train": {"params": {"params.yaml": params}, "deps": deps}}}))


def git(*words: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch) -> None:
    """Runs at the tags base (other params), one and two (seeds); the workspace is that of two, and artifacts are not in git."""
    folder = tmp_path / "work"
    (folder / "artifacts/certify").mkdir(parents=True)
    monkeypatch.chdir(folder)
    git("init", "-q")
    put(".gitignore", "/artifacts/\n")
    for tag, run in (("base", (1.5, 1, True, 7)), ("one", (1.25, 1)), ("two", (1.2, 2))):
        put_run(*run)
        git("add", "-A")
        git("commit", "-qm", tag)
        git("tag", tag)


def test_the_folder(repository):
    found = submission.files(["one", "two"], [], WORDS)
    assert set(found) == {
        "README.md", "submission.json", "submission.pyz", "certificate.json", "certificate.md", "params.yaml",
        "source/fairway/submission/command_line.py", "source/fairway/submission/text.py",
        *(f"logs/seed_{seed}/{log}" for seed in (1, 2) for log in ("loss.tsv", "metrics.json")),
    }  # fmt: skip
    assert found["submission.pyz"] == Path("artifacts/certify/submission.pyz").read_bytes()
    assert found["logs/seed_1/loss.tsv"] == b"step\tloss\n1\t1\n"
    assert json.loads(found["logs/seed_1/metrics.json"]) == {"train_loss": 1.25}
    assert found["source/fairway/submission/text.py"] == b"# text\n"
    assert yaml.safe_load(found["params.yaml"])["ttt"] == {"optimizer": "sgd"}
    assert b"1.0e-05" in found["params.yaml"]  # a number in YAML 1.1 and 1.2


def test_submission_json(repository):
    entry = json.loads(submission.files(["one", "two"], [], WORDS)["submission.json"])
    assert entry | WORDS == entry
    assert entry["val_bpb"] == 1.225 and entry["bytes_total"] == 1000 and entry["bytes_code"] == 300
    assert entry["val_loss"] == pytest.approx(1.225 * 3 * 0.693147, abs=1e-5)
    assert entry["val_bpb_std"] == pytest.approx(0.05 / 2**0.5, abs=1e-6)
    assert entry["seeds"]["2"]["val_bpb"] == 1.2


def test_readme(repository):
    page = submission.files(["one", "two"], ["base"], WORDS)["README.md"].decode()
    assert page.startswith("# tree\n\n**val_bpb 1.2250**, 2.5473 nats per token, 1,000 bytes.\n\nNew.\n")
    flat = re.sub(" +", " ", page)
    assert "| 2 | 1.20000 |" in flat and "| mean | 1.22500 |" in flat and "run of seed 2" in flat
    assert "two against base: no test, base has one seed" in flat
    assert "| float | 1.7250 |" in flat and "| TTT | 1.4750 |" in flat and "| mixture | 1.2250 |" in flat
    assert "| zip directory | 20 |" in flat and "| total | 1,000 |" in flat
    assert "**Legal**" in flat and "- holds: the text comes back: identical" in flat
    assert "| quant.bits | 6 |" in flat
    assert "- #549: parallel Muon, score-first test-time training\n" in flat and "#1530" not in flat


def test_same_runs_same_bytes_but_for_the_date(repository):
    found, again = (submission.files(["one", "two"], [], WORDS | {"date": date}) for date in ("a", "b"))
    assert [path for path in found if found[path] != again[path]] == ["submission.json"]
    assert found == submission.files(["one", "two"], [], WORDS | {"date": "a"})


def test_a_score_that_is_not_legal_is_refused_unless_asked_for(repository):
    put_run(1.2, 2, legal=False)
    with pytest.raises(InputError, match=r"says not legal \(causal: scores move\); --anyway") as error:
        submission.files(["workspace"], [], WORDS)
    assert "\n" not in str(error.value)
    page = submission.files(["workspace"], [], WORDS, anyway=True)["README.md"].decode()
    assert "**Not legal**" in page and "- **FAILS**: the text comes back" in page


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["two", "base"], "base: it differs from two in more than train.seed"),
        (["one"], "one: none of these is the run in the workspace"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(repository, names, sentence):
    with pytest.raises(InputError, match=sentence):
        submission.files(names, [], WORDS)


def test_what_is_not_of_the_run_is_refused(repository):
    put("fairway/submission/text.py", "# edited\n")
    with pytest.raises(InputError, match=r"fairway/submission/text.py: edited since the run"):
        submission.files(["two"], [], WORDS)
    put("artifacts/certify/submission.pyz", "another")
    with pytest.raises(InputError, match="it is not the file that"):
        submission.files(["two"], [], WORDS)


@pytest.mark.parametrize(
    ("path", "content", "sentence"),
    [
        ("dvc.lock", "stages: {}: {}", "two: its dvc.lock is not as DVC writes it"),
        ("dvc.lock", "", "two: its dvc.lock is not as DVC writes it"),
        ("reports/train/loss.tsv", "", "two: its reports/train/loss.tsv is no table of step and loss"),
        ("reports/train/loss.tsv", "step\tloss\n1\t2.x\n", "two: its reports/train/loss.tsv is no table of step and loss"),
        ("reports/train/loss.tsv", "step\tloss\n1\t\n", "two: its reports/train/loss.tsv is no table of step and loss"),
        ("reports/report/stages.json", "[]", "two: its reports/report/stages.json"),
        (
            "artifacts/certify/certificate.json",
            "[1]",
            "workspace: its artifacts/certify/certificate.json has no key",
        ),
        ("reports/compress/metrics.json", "{", "workspace: its reports/compress/metrics.json is not valid JSON"),
    ],
)
def test_a_damaged_file_is_named(repository, path, content, sentence):
    put(path, content)
    if not path.startswith("artifacts"):
        git("add", "-A")
        git("commit", "-qm", "damaged")
        git("tag", "-f", "two")
    with pytest.raises(InputError) as error:
        submission.files(["two"], [], WORDS)
    assert str(error.value).startswith(sentence) and "\n" not in str(error.value)


def test_a_lock_without_the_code_is_named(repository):
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    del lock["stages"]["train"]["deps"][0]
    put("dvc.lock", yaml.dump(lock))
    with pytest.raises(InputError) as error:
        submission.files(["workspace"], [], WORDS)
    assert str(error.value) == (
        "dvc.lock: it does not say with which fairway/submission/command_line.py the run was; "
        "run `git checkout dvc.lock` or `dvc repro`"
    )


def test_the_command(repository, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    out = tmp_path / "records" / "mine"
    monkeypatch.setattr("sys.argv", ["report", "submission", str(out), "one", "two", "--author", "A", "--github", "a"])
    command.main()
    assert "mine: 12 files, " in capsys.readouterr().out
    entry = json.loads((out / "submission.json").read_text())
    assert entry["name"] == "mine" and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["date"])
    assert (out / "logs/seed_2/loss.tsv").is_file()
    with pytest.raises(SystemExit, match="it is there already; give a folder that is new or empty"):
        command.main()
    monkeypatch.setattr("sys.argv", ["report", "submission", str(tmp_path / "b"), "two", "--author", "A"])
    with pytest.raises(SystemExit, match=r"no github.user; set it with `git config github.user NAME`, or give --github NAME"):
        command.main()


def test_settings_and_credits_are_params():
    params, text = read_yaml(ROOT / "params.yaml"), (ROOT / "params.yaml").read_text(encoding="utf-8")
    for name in [*readme.SETTINGS, *(key for key, *_ in readme.CREDITS)]:
        section, key = name.split(".")
        assert key in params[section], name
    for name, values, *_ in readme.CREDITS:
        line = re.search(rf"^  {name.split('.')[1]}: .*", text[text.index(f"\n{name.split('.')[0]}:") :], re.MULTILINE)[0]
        assert all(re.search(rf"\b{value}\b", line) for value in values or []), name


def test_the_packed_modules_are_those_of_the_stage():
    assert "packing.build(packing.MODULES, " in (ROOT / "stages/compress.py").read_text(encoding="utf-8")
    assert submission.MODULES is packing.MODULES
