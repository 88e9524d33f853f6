"""The compiler of hot loops: numba's, with machine code kept between runs in a folder named by a hash of the code behind it.

By itself numba checks only the file that a function is in: after a change of a constant or a function in another file it would
run old code, and has given wrong numbers. Clones of the same code share the folder if NUMBA_CACHE_DIR says where it is.
Inside submission.pyz nothing is kept.

Git ignores the folder, so an exchanged file in it shows nowhere. Beside each file stands its SHA-256, and what differs from
that is compiled again. But who can write the folder can write both; so what checks scores calls `compile_afresh`.
"""

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numba
from numba.core import caching


def digest(root: Path) -> str:
    """Of all code in the packages below `root` that have compiled functions."""
    contents = {path: path.read_bytes() for path in sorted(root.rglob("*.py"))}
    packages = {path.parent for path, content in contents.items() if b"njit" in content} - {root}
    parts = [content for path, content in contents.items() if path.parent in packages]
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


class Recorded(caching.IndexDataCacheFile):
    """The index and the machine code of one function, each with its SHA-256 in a file beside it."""

    afresh = False

    def files(self) -> Iterator[Path]:
        index = Path(self._index_path)
        return index.parent.glob(f"{index.stem}.*nb[ic]")

    def load(self, key: tuple) -> object:
        intact = not self.afresh and all(recorded(path) == sha256(path) for path in self.files())
        return super().load(key) if intact else None

    def save(self, key: tuple, data: object) -> None:
        if any(recorded(path) != sha256(path) for path in self.files()):
            self.flush()  # before numba reads the index
        super().save(key, data)
        for path in self.files():
            path.with_name(f"{path.name}.sha256").write_text(sha256(path), encoding="ascii")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recorded(path: Path) -> str:
    beside = path.with_name(f"{path.name}.sha256")
    return beside.read_text(encoding="ascii") if beside.exists() else ""


def compile_afresh() -> None:
    """Load no machine code from now on: whatever this process runs first, it compiles."""
    Recorded.afresh = True


njit, HERE = numba.njit, Path(__file__).parent
if HERE.is_dir():
    folder = Path(numba.config.CACHE_DIR or HERE / "__pycache__")
    numba.config.CACHE_DIR = str(folder / f"kernels-{digest(HERE)}")
    # Within the folder numba names a package by its path, which differs between clones; here the name is enough.
    caching.UserProvidedCacheLocator.get_suitable_cache_subpath = staticmethod(lambda file: Path(file).parent.name)
    caching.IndexDataCacheFile = Recorded
    njit = functools.partial(numba.njit, cache=True)
