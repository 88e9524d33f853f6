"""What refuses a cheat that the certificate by its nature cannot see, or that comes after the certificate.

Each is a function of the folder of the honest pipeline, called in the folder of the cheat; it returns what it says, by name.
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path
from unittest.mock import patch

import yaml

from fairway import judge as judging
from fairway.errors import InputError
from fairway.params import read_yaml
from fairway.recorded import LOCK, SAME, compare, md5_of, outputs, size_of
from fairway.replay import WITH_CLOCKS
from fairway.report import submission
from tests.gallery.text import documents

ROOT = Path(__file__).resolve().parents[2]
PROVED = "proved"
FRESH, REPLAY, VERIFIED = "python -m fairway.judge --fresh", "make replay", "tests/verifier/verify.py"
SUBMITTED, UNCHANGED = "python -m fairway.report submission", "nothing is gained"
WORDS = {"author": "A", "github_id": "a", "name": "tree", "blurb": "New.", "date": "2026-01-02T03:04:05Z", "track": "t"}
FRESH_TEXT = "\0".join(json.loads(line)["text"] for line in documents(20, seed=99).splitlines()).encode()
Found = dict[str, str]


def lock(folder: Path = Path()) -> None:
    """dvc.yaml, and a dvc.lock of the files that are there, as DVC writes it."""
    pipeline = read_yaml(ROOT / "dvc.yaml")
    params, locked = read_yaml(folder / "params.yaml"), {}
    for name, stage in pipeline["stages"].items():
        named = [out for key in ("outs", "metrics", "plots") for out in stage.get(key, [])]
        outs = [out if isinstance(out, str) else next(iter(out)) for out in named]
        locked[name] = {
            "cmd": stage["cmd"],
            "deps": [{"path": path, "md5": md5_of(folder / path) or md5_of(ROOT / path)} for path in stage.get("deps", [])],
            "params": {"params.yaml": {key: params[key] for key in stage.get("params", []) if key in params}},
            "outs": [{"path": path, "md5": md5_of(folder / path), "size": size_of(folder / path)} for path in outs],
        }
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    (folder / LOCK).write_text(yaml.safe_dump({"stages": locked}), encoding="utf-8")


def judge(honest: Path) -> Found:
    """The sealed submission with val, and with a text of the same kind that nobody has seen."""
    Path("fresh").write_bytes(FRESH_TEXT)
    given = ["artifacts/certify/submission.pyz", "artifacts/certify/val.txt", "--fresh", "fresh", "--json", "verdict.json"]
    with patch.object(sys, "argv", ["judge", *given]):
        judging.main()
    reasons = json.loads(Path("verdict.json").read_bytes())["reasons"]
    return {FRESH: "; ".join(reasons)} if reasons else {}


def replay(honest: Path) -> Found:
    """Params, code and data are those of the honest pipeline, whose files are therefore what a clean clone writes."""
    lock()
    recorded = outputs(read_yaml(LOCK), WITH_CLOCKS)
    found = {path: md5 for path in recorded if (md5 := md5_of(honest / path))}
    wrong = [path for path, verdict in compare(recorded, found).items() if verdict != SAME]
    return {REPLAY: f"differs: {', '.join(wrong)}"} if wrong else {}


def verifier(honest: Path) -> Found:
    """The last line of the independent verifier."""
    out, command = io.StringIO(), ["verify.py"]
    with contextlib.redirect_stdout(out), patch.object(sys, "argv", command), contextlib.suppress(SystemExit):
        runpy.run_path(str(ROOT / "tests/verifier/verify.py"), run_name="__main__")
    said = out.getvalue().splitlines()[-1]
    return {} if said == "verified" else {VERIFIED: said}


def submit(honest: Path) -> Found:
    """The folder of a pull request, made from the workspace."""
    try:
        submission.files(["workspace"], [], WORDS)
    except InputError as error:
        return {SUBMITTED: str(error)}
    return {}


def certificate() -> dict:
    return json.loads(Path("artifacts/certify/certificate.json").read_bytes())


def unchanged(honest: Path) -> Found:
    """The score of record, if it is that of the honest pipeline."""
    bpb = certificate()["bpb"]
    same = bpb == json.loads((honest / "artifacts/certify/certificate.json").read_bytes())["bpb"]
    return {UNCHANGED: f"{bpb:.4f} bits per byte, as without the cheat"} if same else {}
