"""`submission.pyz`: one Python zip application with the runtime code, the tokenizer and the weights.

The code is the import closure of the entry modules, tree-shaken (shaking.py), minified and compressed as one stream, which
loader.py imports from memory as `__main__.py`. Comments, docstrings and annotations are removed, except annotations of
class attributes, which define the fields of dataclasses. The same input gives the same bytes: the order is fixed and the
dates are of 1980. The predictor's settings are known only after the evaluation, so they have room of fixed size at the
end: sealing them in changes neither the size nor the position of any other byte.
"""

import ast
import inspect
import io
import json
import lzma
import struct
import zipfile
import zlib
from pathlib import Path

import python_minifier

from fairway.closure import import_closure
from fairway.codec import archive as zipped
from fairway.errors import RERUN, InputError, reading
from fairway.submission import loader
from fairway.submission.shaking import mentions, shaken

PLACE = "artifacts/compress/submission.pyz"  # the path in error messages
MODULES = ["fairway.submission.command_line", "fairway.submission.text"]  # their code is packed; the first has `main`
SETTINGS = "settings.json"
SETTINGS_BYTES = 1024  # of JSON; params at their default values take none (score.config.Settings.to_json)
TOKENIZER = "tokenizer.model"
WEIGHTS = "model.fwy"
START = "\ninstall(__spec__.loader)\nfrom {entry} import main\nsys.exit(main(sys.argv[1:]))\n"
# Text has no alignment: pb 0 takes 1 % less than the preset.
LZMA_FILTER = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "pb": 0}
# The zip format: sizes of a central entry, the end record and a local header without names; offsets of the CRC-32 in headers.
CENTRAL_BYTES, END_BYTES, LOCAL_BYTES = 46, 22, 30
CENTRAL_CRC, LOCAL_CRC = 16, 14


def build(modules: list[str], members: dict[str, bytes], root: Path) -> bytes:
    """A zip application that runs `main(argv)` of the first module, with all code below `root` that `modules` need.

    `members` are stored beside the code under their names, compressed if that helps. The settings are {}.
    Raises InputError if a module is not there.
    """
    main = minified({"main": inspect.getsource(loader) + START.format(entry=modules[0])}, {"main"})["main"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry("__main__.py"), main, zipfile.ZIP_DEFLATED, compresslevel=9)
        archive.writestr(_entry(loader.CODE), code_stream(modules, root))
        for name in sorted(members):
            # The weights are coded already: their bytes in the zip are those of the file.
            method = zipfile.ZIP_STORED if name == WEIGHTS else zipped.smallest(members[name])[0]
            archive.writestr(_entry(name), members[name], method, compresslevel=9)
        archive.writestr(_entry(SETTINGS), _padded({}))
    return stream.getvalue()


def code_stream(modules: list[str], root: Path) -> bytes:
    """The stream that loader.py reads: `modules` whole, and what they need of other modules. Raises InputError."""
    paths = sorted({path for module in modules for path in import_closure(module, root)})
    sources = {_dotted(path): (root / path).read_text(encoding="utf-8") for path in paths}
    content = "\0".join(part for item in minified(sources, set(modules)).items() for part in item)
    return lzma.compress(content.encode(), lzma.FORMAT_ALONE, filters=[LZMA_FILTER])


def minified(sources: dict[str, str], whole: set[str]) -> dict[str, str]:
    """The same modules in fewer bytes. Attributes, and globals that other modules mention, keep their names.

    Modules not in `whole` keep only the definitions that others need. Literals stay in place, because hoisting them into
    names hides repetitions from the compressor.
    """
    trees = shaken({name: ast.parse(_bare(text, name)) for name, text in sources.items()}, whole)
    mentioned = {name: set(mentions(tree)) for name, tree in trees.items()}
    texts = {}
    for name, tree in trees.items():
        public = {"main"}.union(*(names for other, names in mentioned.items() if other != name))
        texts[name] = python_minifier.minify(
            ast.unparse(tree), name, hoist_literals=False, rename_globals=True, preserve_globals=sorted(public)
        )
    return texts


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _bare(source: str, name: str) -> str:
    """The source without docstrings and annotations, whose names would otherwise count as needed."""
    return python_minifier.minify(source, name, remove_literal_statements=True, hoist_literals=False, rename_locals=False)


def seal(pyz: bytes, settings: dict) -> bytes:
    """The same application with other settings and the same size.

    Raises InputError if the settings' JSON does not fit, or if `pyz` is damaged or was not built here.
    """
    content = _padded(settings)
    *_, entry = [None, *_entries(pyz)]
    if entry is None or entry.filename != SETTINGS or entry.file_size != SETTINGS_BYTES:
        found = f"found '{entry.filename}'" if entry else "found an empty zip"
        raise InputError(f"{PLACE}: expected '{SETTINGS}' of {SETTINGS_BYTES} bytes last, {found}; {RERUN}")
    sealed = bytearray(pyz)
    checksum = struct.pack("<I", zlib.crc32(content))
    central = len(pyz) - END_BYTES - CENTRAL_BYTES - len(SETTINGS)
    start = entry.header_offset + LOCAL_BYTES + len(SETTINGS)
    sealed[start : start + SETTINGS_BYTES] = content
    for crc in (entry.header_offset + LOCAL_CRC, central + CENTRAL_CRC):
        sealed[crc : crc + 4] = checksum
    return bytes(sealed)


def members(pyz: bytes) -> dict[str, bytes]:
    """The content of every member. Raises InputError if `pyz` is damaged, no zip, or unpacks to more than a submission can."""
    with reading(PLACE, "a zip application", Exception), zipfile.ZipFile(io.BytesIO(pyz)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > zipped.MOST_BYTES:
            raise zipfile.BadZipFile(f"it unpacks to more than {zipped.MOST_BYTES:,} bytes")
        return {entry.filename: zipped.member(archive, entry.filename) for entry in archive.infolist()}


def sizes(pyz: bytes) -> dict[str, int]:
    """Bytes by part: code_bytes (settings and zip headers included), tokenizer_bytes, weights_bytes, total.

    Raises InputError if `pyz` is damaged or not a zip.
    """
    stored = {entry.filename: entry.compress_size for entry in _entries(pyz)}
    tokenizer, weights = stored.get(TOKENIZER, 0), stored.get(WEIGHTS, 0)
    return {
        "code_bytes": len(pyz) - tokenizer - weights,
        "tokenizer_bytes": tokenizer,
        "weights_bytes": weights,
        "total": len(pyz),
    }


def _padded(settings: dict) -> bytes:
    content = json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    if len(content) > SETTINGS_BYTES:
        raise InputError(f"submission.pyz: the settings take {len(content)} bytes of JSON; {SETTINGS_BYTES} is the limit")
    return content.ljust(SETTINGS_BYTES)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # dated 1980-01-01
    entry.create_system = 3  # Unix, wherever it is built
    return entry


def _entries(pyz: bytes) -> list[zipfile.ZipInfo]:
    """The entries of the zip. Verifies every checksum first."""
    members(pyz)
    with zipfile.ZipFile(io.BytesIO(pyz)) as archive:
        return archive.infolist()
