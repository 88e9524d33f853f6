"""What a fenced submission may read: the interpreter, its standard library, the named libraries with what they require, and the
shared libraries of the system that these link to. Nothing else of the virtual environment or of the system.

The libraries' packages come from their metadata; shared libraries from the dynamic loader itself (ldd).
"""

import functools
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

LIBRARIES = ("torch", "numpy", "numba", "sentencepiece", "constriction")
CODERS = ("brotli", "zstandard")  # of the published weight containers (compress.coder), where they are installed
PACKAGES = "/libraries"  # where they are inside
PROCESSOR = ("possible", "present", "online", "kernel_max")  # files in /sys/devices/system/cpu
VARYING = ("cpu MHz", "bogomips")  # lines of /proc/cpuinfo that change while it runs
USER = "submission:x:65534:65534::/work:/\n"  # /etc/passwd
SHARED = re.compile(r"(?:=> |^\t)(/\S+) \(0x", re.MULTILINE)  # in what ldd prints


class Places(NamedTuple):
    """Paths inside the fence, and what is there."""

    python: str
    binds: dict[str, str]  # read-only, from this file or folder
    texts: dict[str, str]  # files of constant content
    links: dict[str, str]
    emptied: list[str]
    writable: dict[str, str]  # folders bound to be written; none but in tests
    outside: list[str]  # folders of the packages, for where there is no fence


@functools.cache
def places() -> Places:
    python, library = str(Path(sys.executable).resolve()), Path(sysconfig.get_path("stdlib")).resolve()
    packages = required((*LIBRARIES, *CODERS))
    tops = {top: Path(package.locate_file(top)).resolve() for package in packages for top in contents(package)}
    code = [Path(python), *library.glob("lib-dynload/*.so"), *(path for top in tops.values() for path in objects(top))]
    shared = {path: str(Path(path).resolve()) for path in linked(code)}
    inside = {f"{PACKAGES}/{top}": str(path) for top, path in tops.items()}
    links = {f"/{folder}/{Path(path).name}": path for path in shared for folder in ("lib", "lib64")}
    emptied = [str(library / name) for name in ("site-packages", "dist-packages") if (library / name).is_dir()]
    binds = {python: python, str(library): str(library)} | shared | inside
    outside = sorted({str(package.locate_file("")) for package in packages})
    return Places(python, binds, texts(), links, emptied, {}, outside)


def required(names: tuple[str, ...]) -> list[Distribution]:
    """These distributions and all installed ones that they require, whatever the condition unless it is an extra."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if name in LIBRARIES:
                raise
            continue
        lines = [line for line in found[name].requires or [] if "extra ==" not in line]
        waiting += [re.match(r"[\w.-]+", line)[0] for line in lines]
    return list(found.values())


def contents(package: Distribution) -> list[str]:
    """The files and folders of a distribution that lie directly in the folder of packages."""
    tops = {path.parts[0] for path in package.files or [Path(package.name)]}
    return sorted(top for top in tops if top not in ("..", "/", "__pycache__") and not top.endswith(".pth"))


def objects(top: Path) -> list[Path]:
    """Shared objects in a folder, or the file itself if it is one."""
    found = top.rglob("*.so*") if top.is_dir() else [top]
    return [path for path in found if re.search(r"\.so(\.\d+)*$", path.name)]


def linked(code: list[Path]) -> list[str]:
    """Absolute paths of the shared libraries outside these files' own packages that they link to, the loader among them."""
    if not (loader := shutil.which("ldd")):  # no Linux; the fence says what is missing
        return []
    command, environment = [loader, *map(str, code)], os.environ | {"LC_ALL": "C"}
    printed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout
    own = {path.parent for path in code[1:]}
    return sorted(path for path in set(SHARED.findall(printed)) if Path(path).resolve().parent not in own)


def texts() -> dict[str, str]:
    """Constant files that libraries ask for: the processor, on which kernels are chosen, and a user's name."""
    found = {"/etc/passwd": USER}
    if (source := Path("/proc/cpuinfo")).exists():
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        found["/proc/cpuinfo"] = "".join(line for line in lines if not line.startswith(VARYING))
    for name in PROCESSOR:
        if (path := Path("/sys/devices/system/cpu", name)).exists():
            found[str(path)] = path.read_text(encoding="ascii")
    return found
