"""The example of docs/technique.md: its diff applies to this tree, in at most five files, and the test it brings passes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_of_a_technique_applies_and_passes_its_test(tmp_path):
    page = (ROOT / "docs/technique.md").read_text(encoding="utf-8")
    (diff,) = re.findall(r"^```diff\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    changed = re.findall(r"^\+\+\+ b/(\S+)", diff, re.MULTILINE)
    assert len(changed) <= 5 and "params.yaml" in changed and any(path.startswith("tests/") for path in changed)
    for folder in ("fairway", "tests/lm"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff, text=True, check=True)

    (test,) = re.findall(r"^\+def (test_\w+)", diff, re.MULTILINE)
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", ".", "-k", test]
    path = next(path for path in changed if path.startswith("tests/"))
    interpreted = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(tmp_path)}  # compiling takes longer than the test
    pytest = [sys.executable, "-m", "pytest", *options, path]
    tried = subprocess.run(pytest, cwd=tmp_path, env=interpreted, capture_output=True, text=True, check=False)
    assert tried.returncode == 0 and "1 passed" in tried.stdout, tried.stdout + tried.stderr

    read = "from fairway.params import load; from fairway.lm.config import Model; print(load('params.yaml', 'model', Model))"
    loaded = [sys.executable, "-c", read]
    shown = subprocess.run(loaded, cwd=tmp_path, env=interpreted, capture_output=True, text=True, check=True).stdout
    assert all(f"{key}=False" in shown for key in re.findall(r"^\+  (\w+): false", diff, re.MULTILINE))
