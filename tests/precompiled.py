"""fairway/proof/sandbox.py with machine code kept between the processes of submissions, each of which compiles for half a
minute otherwise: `python -I precompiled.py REPORT submission.pyz …`.

A test has the submissions of its certificates started this way through the fixture `precompiled` of tests/conftest.py. What is
in submission.pyz stays as it is: numba keeps what it compiles, in a folder named by a hash of all packages in the
application that have compiled functions, and the sandbox lets the process read and write that one folder more.
"""

import functools
import hashlib
import importlib.util
import lzma
import sys
import zipfile
from pathlib import Path

import numba
from numba.core import caching

ROOT = Path(__file__).resolve().parents[1]
CODE = "code"  # the member of submission.pyz; its format is that of fairway/submission/loader.py


def digest(application: str) -> str:
    with zipfile.ZipFile(application) as archive:
        parts = lzma.decompress(archive.read(CODE)).decode().split("\0")
    contents = dict(zip(parts[::2], parts[1::2], strict=True))
    packages = {name.rpartition(".")[0] for name, content in contents.items() if "njit" in content}
    kernels = [content for name, content in sorted(contents.items()) if name.rpartition(".")[0] in packages]
    return hashlib.blake2b("\0".join(kernels).encode(), digest_size=8).hexdigest()


class Packed(caching.UserProvidedCacheLocator):
    """Where the machine code of a function in an application lies."""

    get_suitable_cache_subpath = staticmethod(lambda file: Path(file).parent.name)

    def get_source_stamp(self) -> None:
        return None  # the folder is that of this code

    @classmethod
    def from_function(cls, function, file: str) -> "Packed":
        locator = cls(function, file)
        locator.ensure_cache_path()
        return locator


def with_folder(restrict, readable, writable, *rest):
    return restrict([*readable, __file__], [*writable, numba.config.CACHE_DIR], *rest)


def main(report: str, application: str, *arguments: str) -> None:
    folder = ROOT / "fairway/__pycache__" / f"submission-{digest(application)}"
    folder.mkdir(parents=True, exist_ok=True)
    numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = str(folder), "precompiled.Packed"
    numba.njit = functools.partial(numba.njit, cache=True)
    sys.modules["precompiled"] = sys.modules[__name__]
    place = ROOT / "fairway/proof/sandbox.py"
    spec = importlib.util.spec_from_file_location("sandbox", place)
    sandbox = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sandbox)
    sandbox.own_files = functools.partial(with_folder, sandbox.own_files)
    sandbox.Sandbox = functools.partial(with_folder, sandbox.Sandbox)
    sandbox.main(report, application, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
