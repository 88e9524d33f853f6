"""The compiler of hot loops: numba's, with machine code kept between runs in a folder named by a hash of what it was made of.

Left alone, numba looks at the file that a function stands in and nothing else: after a change of a constant or a function in
another file it would run old code, and has given wrong numbers. Inside submission.pyz nothing is kept.
"""

import functools
import hashlib
from pathlib import Path

import numba


def digest(root: Path) -> str:
    """Of all code in the rooms that have compiled functions."""
    contents = {path: path.read_bytes() for path in sorted(root.rglob("*.py"))}
    rooms = {path.parent for path, content in contents.items() if b"njit" in content} - {root}
    parts = [content for path, content in contents.items() if path.parent in rooms]
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()


njit, HERE = numba.njit, Path(__file__).parent
if HERE.is_dir():
    numba.config.CACHE_DIR = str(HERE / "__pycache__" / f"kernels-{digest(HERE)}")
    njit = functools.partial(numba.njit, cache=True)
