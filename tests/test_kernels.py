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
RUN = "from fairway.room.outer import outer; print(outer(10), sum(outer.stats.cache_hits.values()))"


@pytest.fixture
def house(tmp_path) -> Path:
    (tmp_path / "fairway/room").mkdir(parents=True)
    shutil.copy(Path(kernels.__file__), tmp_path / "fairway")
    (tmp_path / "fairway/room/inner.py").write_text(INNER.format(step=1))
    (tmp_path / "fairway/room/outer.py").write_text(OUTER)
    return tmp_path


def result(house: Path) -> list[int]:
    """The number that outer(10) is, and how often its machine code was found."""
    done = subprocess.run([sys.executable, "-c", RUN], cwd=house, capture_output=True, text=True, check=True)
    return list(map(int, done.stdout.split()))


def test_code_is_kept_until_a_file_it_leans_on_changes(house):
    assert result(house) == [22, 0]
    assert result(house) == [22, 1]
    (house / "fairway/room/inner.py").write_text(INNER.format(step=5))
    assert result(house) == [30, 0]


def test_the_digest_is_of_the_rooms_with_compiled_functions(house):
    before = kernels.digest(house / "fairway")
    (house / "fairway/other").mkdir()
    (house / "fairway/other/table.py").write_text("ROWS = 3\n")
    assert kernels.digest(house / "fairway") == before
    (house / "fairway/room/table.py").write_text("ROWS = 3\n")
    assert kernels.digest(house / "fairway") != before


def test_every_kernel_of_the_house_is_kept_there():
    root = Path(kernels.__file__).parent
    compiles = re.compile(r"from numba|numba\.\w*(jit|vectorize)")
    direct = [path for path in root.rglob("*.py") if compiles.search(path.read_text()) and path.name != "kernels.py"]
    assert direct == []
