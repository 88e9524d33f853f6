"""fairway/proof/sandbox.py with machine code kept between the processes of submissions, each of which compiles for half a
minute otherwise. A test has the submissions of its certificates started this way by `install`, and its certify load the
machine code of other stages.

What is in submission.pyz stays as it is: numba keeps what it compiles, in a folder named by a hash of all packages in the
application that have compiled functions. The fence lets the process read and write that folder; its report says so.
"""

import functools
import hashlib
import importlib.util
import lzma
import os
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve()
INSIDE = Path("/fence/kernels")  # where the fence puts KEPT
KEPT = HERE.parents[1] / "fairway/__pycache__/submissions"
CODE = "code"  # the member of submission.pyz; its format is that of fairway/submission/loader.py


def digest(application: str) -> str:
    with zipfile.ZipFile(application) as archive:
        parts = lzma.decompress(archive.read(CODE)).decode().split("\0")
    contents = dict(zip(parts[::2], parts[1::2], strict=True))
    packages = {name.rpartition(".")[0] for name, content in contents.items() if "njit" in content}
    kernels = [content for name, content in sorted(contents.items()) if name.rpartition(".")[0] in packages]
    return hashlib.blake2b("\0".join(kernels).encode(), digest_size=8).hexdigest()


def keep(folder: Path) -> None:
    """Have numba keep in the folder what it compiles from now on."""
    import numba
    from numba.core import caching

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

    sys.modules["precompiled"], sys.modules[__name__].Packed = sys.modules[__name__], Packed
    numba.config.CACHE_DIR, numba.config.CACHE_LOCATOR_CLASSES = str(folder), "precompiled.Packed"
    numba.njit = functools.partial(numba.njit, cache=True)


def with_folder(restrict, folder, readable, writable, *rest):
    return restrict([*readable, str(HERE)], [*writable, str(folder)], *rest)


def install(patch) -> None:
    """`patch`: a function like MonkeyPatch.setattr."""
    from fairway import kernels
    from fairway.proof import fence, sandbox

    KEPT.mkdir(parents=True, exist_ok=True)
    KEPT.chmod(0o777)  # a submission that root starts runs as another user
    visible, code = fence.places(), {str(INSIDE.with_name("sandbox.py")): sandbox.__file__}
    patch(fence, "places", lambda: visible._replace(binds=visible.binds | code, writable={str(INSIDE): str(KEPT)}))
    patch(sandbox, "__file__", str(HERE))
    patch(kernels, "compile_afresh", lambda: None)


def main(mode: str, packages: str, descriptor: str, application: str, *arguments: str) -> None:
    os.umask(0)
    fenced = mode == "fenced"
    folder = (INSIDE if fenced else KEPT) / digest(application)
    folder.mkdir(exist_ok=True)
    sys.path += packages.split(os.pathsep)
    keep(folder)
    place = HERE.with_name("sandbox.py") if fenced else HERE.parents[1] / "fairway/proof/sandbox.py"
    spec = importlib.util.spec_from_file_location("sandbox", place)
    sandbox = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sandbox)
    sandbox.own_files = functools.partial(with_folder, sandbox.own_files, folder)
    sandbox.Sandbox = functools.partial(with_folder, sandbox.Sandbox, folder)
    sandbox.main(mode, packages, descriptor, application, *arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
