"""The compiler of hot loops: numba's, with machine code kept between runs in a folder named by a hash of the code behind it.

By itself numba checks only the file that a function is in: after a change of a constant or a function in another file it would
run old code, and has given wrong numbers. Clones of the same code share the folder if NUMBA_CACHE_DIR says where it is.
Inside submission.pyz nothing is kept.
"""

import functools
import hashlib
from pathlib import Path

import numba


def digest(root: Path) -> str:
    """Of all code in the packages below `root` that have compiled functions."""
    contents = {path: path.read_bytes() for path in sorted(root.rglob("*.py"))}
    packages = {path.parent for path, content in contents.items() if b"njit" in content} - {root}
    parts = [content for path, content in contents.items() if path.parent in packages]
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


njit, HERE = numba.njit, Path(__file__).parent
if HERE.is_dir():
    folder = Path(numba.config.CACHE_DIR or HERE / "__pycache__")
    numba.config.CACHE_DIR = str(folder / f"kernels-{digest(HERE)}")
    # Within the folder numba names a package by its path, which differs between clones; here the name is enough.
    numba.core.caching.UserProvidedCacheLocator.get_suitable_cache_subpath = staticmethod(lambda file: Path(file).parent.name)
    njit = functools.partial(numba.njit, cache=True)
