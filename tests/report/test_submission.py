"""A submission folder made from a small repository with the files of a run; runs of two seeds are commits."""

import hashlib
import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml

from fairway import lock
from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.report import __main__ as command
from fairway.report import readme, submission
from fairway.submission import packing

ROOT = Path(__file__).resolve().parents[2]
WORDS = {"author": "A", "github_id": "a", "name": "tree", "blurb": "New.", "date": "2026-01-02T03:04:05Z", "track": "t"}
CLAIM = {"condition": "proof", "claim": "the text comes back", "how": "decoded", "amount": "much", "passed": True}
LEGAL, TOKENS = {"proved": True, "refused": False}, {"proved": 1000, "refused": 1000}
HASHED = {"submission": "submission.pyz", "coded": "coded.fwt", "val_documents": "val.txt"}
PARAMS = {"train": {"seed": 1, "steps": 9, "muon_lr": 1e-05}, "ttt": {"optimizer": "sgd"}, "quant": {"bits": 6}}


def put(path: str, content) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content if isinstance(content, str) else json.dumps(content))


def put_run(bpb: float, seed: int, verdict: str = "proved", bits: int = 6) -> None:
    """All files that a submission is made from, in the current folder; of 8,000 bytes of text."""
    legal = LEGAL.get(verdict)
    summary = {"val_bpb_float": bpb + 0.5, "val_bpb_ttt": bpb + 0.25, "val_bpb_ngram": bpb, "legal": legal}
    summary |= {"certified_tokens": TOKENS.get(verdict, 10), "certified_bpb": bpb, "artifact_bytes": 1000, "code_bytes": 320}
    put("reports/summary.json", {"val_bpb": bpb} | summary)
    put("reports/report/stages.json", {"tokenize": {"val_bytes": 3000, "val_tokens": 1001}, "train": {"train_loss": bpb}})
    for place in ("reports/report", "artifacts/certify"):
        put(f"{place}/certificate.md", "# Certificate\n")
    put("reports/train/loss.tsv", f"step\tloss\n1\t{seed}\n")
    for name in ("command_line", "text"):
        put(f"fairway/submission/{name}.py", f"# {name}\n")
    with zipfile.ZipFile(Path("artifacts/certify/submission.pyz"), "w") as archive:
        for name, content in (("tokenizer.model", b"t" * 100), ("model.fwy", b"w" * 580), ("settings", str(seed))):
            archive.writestr(name, content)
        archive.comment = bytes(1000 - 680 - 1 - 22 - sum(76 + 2 * len(name) for name in archive.namelist()))
    sizes = {"artifact_bytes": 1000, "headroom_bytes": 9000, "code_bytes": 320, "tokenizer_bytes": 100, "weights_bytes": 580}
    put("reports/compress/metrics.json", sizes)
    put("artifacts/certify/val.txt", "x" * 7999 + "\0y" + "z" * (legal is not True))
    put("artifacts/certify/coded.fwt", "c" * round(1000 * bpb))
    for stage in ("eval_sliding", "eval_ttt", "eval_ngram"):
        put(f"artifacts/{stage}/scores.npy", f"{stage} {seed}")
    put_certificate(bpb, verdict)
    params = PARAMS | {"train": PARAMS["train"] | {"seed": seed}, "quant": {"bits": bits}}
    deps = [{"path": str(p), "md5": md5(p)} for p in sorted(Path().glob("fairway/submission/*.py"))]
    outs = [{"path": str(p), "md5": md5(p), "size": p.stat().st_size} for p in sorted(Path("artifacts/certify").iterdir())]
    train = {"params": {"params.yaml": params}, "deps": deps}
    put("dvc.lock", yaml.dump({"stages": {"train": train, "certify": {"outs": outs}}}))
    put("dvc.yaml", yaml.dump({"stages": {"certify": {}}}))


def put_certificate(bpb: float, verdict: str = "proved") -> None:
    """The certificate of the files that are there, at both places."""
    passed = verdict != "refused"
    content = {
        "verdict": verdict,
        "legal": LEGAL.get(verdict),
        "conditions": {"causal": passed},
        "reasons": [] if passed else ["the text comes back: scores move"],
        "claims": [CLAIM | {"passed": passed, "result": "identical" if passed else "scores move"}],
        "certified_tokens": TOKENS.get(verdict, 10),
        "val_tokens": 1000,
        "bpb": bpb,
        "coded_bytes": round(1000 * bpb),
        "certified_bytes": 8001,
        "estimates": {"eval_sliding": bpb + 0.3, "eval_ttt": bpb + 0.25, "eval_ngram": bpb},
        "scores_sha256": {p.parent.name: sha256(p) for p in Path("artifacts").glob("eval_*/scores.npy")},
        "dvc_lock_sha256": lock.digest({"certify": {}}, {}, "certify"),
        **{f"{key}_sha256": sha256(Path("artifacts/certify", name)) for key, name in HASHED.items()},
    }
    put("artifacts/certify/certificate.json", content)
    put("reports/report/certificate.json", content)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def change(path: str, **values) -> None:
    put(path, json.loads(Path(path).read_text()) | values)


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
    for tag, run in (("base", (1.5, 1, "proved", 7)), ("one", (1.25, 1)), ("two", (1.2, 2))):
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
    assert entry["val_bpb"] == 1.225 and entry["bytes_total"] == 1000 and entry["bytes_code"] == 320
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
    assert "| weights | 580 |" in flat and "| total | 1,000 |" in flat
    assert (
        "**Proved**" in flat
        and "| 2 | 1.20000 | 2.49533 | 1,000 | proved |" in flat
        and "- holds: the text comes back: identical" in flat
    )
    assert "| quant.bits | 6 |" in flat
    assert "- #549: parallel Muon, score-first test-time training\n" in flat and "#1530" not in flat


def test_same_runs_same_bytes_but_for_the_date(repository):
    found, again = (submission.files(["one", "two"], [], WORDS | {"date": date}) for date in ("a", "b"))
    assert [path for path in found if found[path] != again[path]] == ["submission.json"]
    assert found == submission.files(["one", "two"], [], WORDS | {"date": "a"})


def test_a_score_that_is_refused_is_so_here_unless_asked_for(repository):
    put_run(1.2, 2, "refused")
    with pytest.raises(InputError, match=r"refuses the score \(the text comes back: scores move\); --anyway") as error:
        submission.files(["workspace"], [], WORDS)
    assert "\n" not in str(error.value)
    found = submission.files(["workspace"], [], WORDS, anyway=True)
    page = found["README.md"].decode()
    assert "**Refused**" in page and "- **FAILS**: the text comes back" in page and "**val_bpb 1.2000** (an estimate)," in page
    assert json.loads(found["submission.json"])["proved"] is False


def test_a_score_that_is_proved_in_part_is_refused_unless_asked_for(repository):
    put_run(1.2, 2, PART)
    with pytest.raises(
        InputError, match=r"two: proved for 10 of 1,000 tokens, so the score is an estimate; set certify.tokens: all"
    ):
        git("add", "-A")
        git("commit", "-qm", "in part")
        git("tag", "-f", "two")
        submission.files(["two"], [], WORDS)
    page = submission.files(["two"], [], WORDS, anyway=True)["README.md"].decode()
    assert "**val_bpb 1.2000** (an estimate)," in page and f"**{PART.capitalize()}**" in page


def test_a_seed_that_is_not_proved_makes_the_mean_an_estimate(repository):
    put_run(1.3, 3, PART)
    git("add", "-A")
    git("commit", "-qm", "three")
    git("tag", "three")
    put_run(1.2, 2)
    with pytest.raises(InputError, match="three: proved for 10 of 1,000 tokens"):
        submission.files(["two", "three"], [], WORDS)
    entry = json.loads(submission.files(["two", "three"], [], WORDS, anyway=True)["submission.json"])
    assert entry["proved"] is False


PAGE, SIZES = "reports/report/certificate.md", "reports/compress/metrics.json"
COPY, MADE = "reports/report/certificate.json", "artifacts/certify/certificate.json"
EDITS = {
    "the score": (lambda: change("reports/summary.json", val_bpb=0.5), "its reports/summary.json: val_bpb is 0.5, but"),
    "the verdict": (lambda: change("reports/summary.json", legal=None), "its reports/summary.json: legal is None, but"),
    "what is proved": (
        lambda: change("reports/summary.json", certified_tokens=9),
        "its reports/summary.json: certified_tokens is 9",
    ),
    "a sum of scores": (
        lambda: change("reports/summary.json", val_bpb_ttt=0.5),
        "its reports/summary.json: val_bpb_ttt is 0.5",
    ),
    "a text for a number": (lambda: change("reports/summary.json", val_bpb="0.5"), "its reports/summary.json: val_bpb is 0.5"),
    "the copy": (lambda: change(COPY, coded_bytes=7), f"its {COPY} is not the one that dvc.lock names"),
    "another certificate": (lambda: put_certificate(1.1), f"its {COPY} is not the one that dvc.lock names"),
    "the original": (lambda: change(MADE, bpb=0.5), f"{MADE}: it differs from {COPY}"),
    "the page": (lambda: put(PAGE, "# Certificate\n\n**Proved**\n"), f"its {PAGE} is not the one that dvc.lock names"),
    "the size": (lambda: change("reports/summary.json", artifact_bytes=7), "its artifact_bytes 7 is not the size of"),
    "a part of the size": (lambda: change(SIZES, weights_bytes=7), f"{SIZES}: weights_bytes is 7, but"),
    "the coded text": (lambda: put("artifacts/certify/coded.fwt", "c" * 9), "artifacts/certify/coded.fwt: its SHA-256 is not"),
    "the text": (lambda: put("artifacts/certify/val.txt", "x" * 99999), "artifacts/certify/val.txt: its SHA-256 is not"),
    "rows": (lambda: put("artifacts/eval_ttt/scores.npy", "rows"), "artifacts/eval_ttt/scores.npy: its SHA-256 is not"),
    "the pipeline": (lambda: put("dvc.yaml", yaml.dump(OTHER)), f"dvc.lock: {MADE} was made after other stages"),
}
OTHER = {"stages": {"train": {"outs": ["artifacts/train"]}, "certify": {"deps": ["artifacts/train"]}}}
PART = "proved for 10 of 1,000 tokens"


@pytest.mark.parametrize("name", EDITS)
def test_a_run_that_was_edited_afterwards_is_refused_and_named(repository, name):
    """Also with --anyway: an estimate may be handed in, another number than the run's may not."""
    edit, sentence = EDITS[name]
    edit()
    for anyway in (False, True):
        with pytest.raises(InputError) as error:
            submission.files(["workspace"], [], WORDS, anyway)
        assert sentence in str(error.value) and "\n" not in str(error.value)


def test_a_lock_that_was_edited_too_does_not_hide_the_size_of_the_coded_text(repository):
    put_run(1.2, 2)
    content = yaml.safe_load(Path("dvc.lock").read_text())
    change(COPY, coded_bytes=500, bpb=0.5)
    change(MADE, coded_bytes=500, bpb=0.5)
    change("reports/summary.json", val_bpb=0.5, certified_bpb=0.5)
    for out in content["stages"]["certify"]["outs"]:
        out |= {"md5": md5(Path(COPY)), "size": Path(COPY).stat().st_size} if out["path"] == MADE else {}
    put("dvc.lock", yaml.dump(content))
    with pytest.raises(
        InputError, match=r"its coded_bytes 500 is not the size of artifacts/certify/coded.fwt that dvc.lock names"
    ):
        submission.files(["workspace"], [], WORDS)


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
    with pytest.raises(InputError, match=r"artifacts/certify/submission.pyz: its SHA-256 is not the one in"):
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
        ("artifacts/certify/certificate.json", "[1]", "artifacts/certify/certificate.json: it differs from reports/report"),
        ("reports/report/certificate.json", "[1]", "two: its reports/report/certificate.json lacks verdict, legal, bpb"),
        ("reports/report/certificate.json", "{", "two: its reports/report/certificate.json is not valid JSON"),
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
