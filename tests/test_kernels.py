"""Machine code is kept between runs, and never outlives a change of what it was made of, in whichever file."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fairway import kernels

INNER = "from fairway.kernels import njit\n@njit\ndef inner(x):\n    return x + STEP\nSTEP = {step}\n"
OUTER = "from fairway.kernels import njit\nfrom .inner import inner\n@njit\ndef outer(x):\n    return 2 * inner(x)\n"
RUN = "from fairway.loops.outer import outer; print(outer(10), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    folder = tmp_path / "root"
    (folder / "fairway/loops").mkdir(parents=True)
    shutil.copy(Path(kernels.__file__), folder / "fairway")
    (folder / "fairway/loops/inner.py").write_text(INNER.format(step=1))
    (folder / "fairway/loops/outer.py").write_text(OUTER)
    return folder


def result(root: Path) -> list[int]:
    """The number that outer(10) is, and how often its machine code was found."""
    done = subprocess.run([sys.executable, "-B", "-c", RUN], cwd=root, capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


def test_code_is_kept_until_a_file_it_leans_on_changes(root):
    assert result(root) == [22, 0]
    assert result(root) == [22, 1]
    (root / "fairway/loops/inner.py").write_text(INNER.format(step=5))
    assert result(root) == [30, 0]


def test_clones_share_a_folder_that_numba_is_told(root, tmp_path, monkeypatch):
    clone = shutil.copytree(root, tmp_path / "clone")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "machine code"))
    assert result(root) == [22, 0]
    assert result(clone) == [22, 1]
    (clone / "fairway/loops/inner.py").write_text(INNER.format(step=5))
    assert result(clone) == [30, 0]
    assert result(root) == [22, 1]
    assert not list(tmp_path.rglob("__pycache__/kernels*"))


def test_machine_code_that_was_exchanged_is_not_run(root):
    """What was compiled for another constant, put in the place of the file that numba would load."""
    kept = root / "fairway/__pycache__"
    (root / "fairway/loops/inner.py").write_text(INNER.format(step=5))
    assert result(root) == [30, 0]
    poison = {path.name: path.read_bytes() for path in kept.rglob("*.nbc")}
    shutil.rmtree(kept)
    (root / "fairway/loops/inner.py").write_text(INNER.format(step=1))
    assert result(root) == [22, 0]
    for path in kept.rglob("*.nbc"):
        path.write_bytes(poison[path.name])
    assert result(root) == [22, 0]
    assert result(root) == [22, 1]


def test_no_machine_code_is_loaded_by_who_compiles_afresh(root):
    assert result(root) == [22, 0]
    program = f"from fairway import kernels; kernels.compile_afresh(); {RUN}"
    done = subprocess.run([sys.executable, "-B", "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "22 0\n"


def test_the_digest_is_of_the_packages_with_compiled_functions(root):
    before = kernels.digest(root / "fairway")
    (root / "fairway/other").mkdir()
    (root / "fairway/other/table.py").write_text("ROWS = 3\n")
    assert kernels.digest(root / "fairway") == before
    (root / "fairway/loops/table.py").write_text("ROWS = 3\n")
    assert kernels.digest(root / "fairway") != before


def test_every_kernel_is_kept():
    root = Path(kernels.__file__).parent
    compiles = re.compile(r"from numba|numba\.\w*(jit|vectorize)")
    direct = [path for path in root.rglob("*.py") if compiles.search(path.read_text()) and path.name != "kernels.py"]
    assert direct == []
