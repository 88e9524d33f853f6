"""Import modules from one compressed stream: the part of `submission.pyz` that runs first.

A zip compresses each file by itself and stores each name twice; one LZMA stream for all modules takes a third less. The
member "code" holds dotted names and sources in turn, separated by NUL. Empty packages are not stored.
Python checks no checksum when it runs a zip, so `install` checks all of them before anything else runs.
"""

import lzma
import sys
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from zipfile import ZipFile
from zipimport import zipimporter

CODE = "code"
MOST_BYTES, PIECE = 1 << 28, 1 << 12  # as in fairway.codec.archive


class Modules(MetaPathFinder, ExecutionLoader):
    """Finds and runs the modules in `sources`, and the packages above them; `place` is the path that tracebacks show."""

    def __init__(self, sources: dict[str, str], place: str):
        self.sources, self.place = sources, place

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return spec_from_loader(name, self) if name in self.sources or self.is_package(name) else None

    def is_package(self, name: str) -> bool:
        return any(other.startswith(name + ".") for other in self.sources)

    def get_filename(self, name: str) -> str:
        return f"{self.place}/{name.replace('.', '/')}.py"

    def get_source(self, name: str) -> str:
        return self.sources.get(name, "")


def install(archive: zipimporter) -> None:
    """Make the modules of a zip application importable, ahead of any others of the same name. Exits if a byte is damaged."""
    try:
        with ZipFile(archive.archive) as file:
            if sum(entry.file_size for entry in file.infolist()) > MOST_BYTES:
                raise ValueError("too large")
            for entry in file.infolist():
                with file.open(entry) as member:
                    while member.read(PIECE):  # checks the checksum at the end
                        pass
            texts = lzma.LZMADecompressor().decompress(file.read(CODE), MOST_BYTES).decode().split("\0")
    except Exception as error:
        sys.exit(f"error: {archive.archive}: damaged ({error}); fetch the file again")
    sys.meta_path.insert(0, Modules(dict(zip(texts[::2], texts[1::2], strict=True)), archive.archive))
