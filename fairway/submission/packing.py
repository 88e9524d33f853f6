"""`submission.pyz`: one Python zip application with the runtime code, the tokenizer and the weights.

The code is the import closure of the entry modules, shaken (shaking.py), minified and compressed as one stream, which
loader.py, as `__main__.py`, imports from memory: comments, docstrings and annotations go, except those of class
attributes, which are the fields of dataclasses. Same input, same bytes: fixed order, dates of 1980. The predictor's
settings, unknown until the evaluation has run, have a slot of fixed size at the end, so that sealing them in changes
neither the size nor any other byte's place.
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

from fairway.errors import RERUN, InputError, reading
from fairway.submission import loader
from fairway.submission.closure import import_closure
from fairway.submission.shaking import mentions, shaken

PLACE = "artifacts/compress/submission.pyz"  # of what is sealed and measured, for sentences
MODULES = ["fairway.submission.command_line", "fairway.submission.text"]  # whose code is packed; the first has `main`
SETTINGS = "settings.json"
SETTINGS_BYTES = 1024
TOKENIZER = "tokenizer.model"
WEIGHTS = "model.fwy"
START = "\ninstall(__spec__.loader)\nfrom {entry} import main\nsys.exit(main(sys.argv[1:]))\n"
# Text has no alignment: pb 0 takes 1 % less than the preset.
LZMA_FILTER = {"id": lzma.FILTER_LZMA1, "preset": 9 | lzma.PRESET_EXTREME, "pb": 0}
# Of the zip format: a central entry and the end record without name, and where the CRC-32 lies in each header.
CENTRAL_BYTES, END_BYTES, LOCAL_BYTES = 46, 22, 30
CENTRAL_CRC, LOCAL_CRC = 16, 14


def build(modules: list[str], members: dict[str, bytes], root: Path) -> bytes:
    """A zip application that runs `main(argv)` of the first module, with what all `modules` need of the code below `root`.

    `members` go in under their names beside the code, compressed where that helps. The settings slot holds {}.
    Raises InputError when a module is not there.
    """
    main = minified({"main": inspect.getsource(loader) + START.format(entry=modules[0])}, {"main"})["main"]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(_entry("__main__.py"), main, zipfile.ZIP_DEFLATED, compresslevel=9)
        archive.writestr(_entry(loader.CODE), code_stream(modules, root))
        for name in sorted(members):
            _add(archive, name, members[name])
        archive.writestr(_entry(SETTINGS), _slot({}))
    return stream.getvalue()


def code_stream(modules: list[str], root: Path) -> bytes:
    """What loader.py reads: all code that `modules` need, those themselves whole. Raises InputError."""
    paths = sorted({path for module in modules for path in import_closure(module, root)})
    sources = {_dotted(path): (root / path).read_text(encoding="utf-8") for path in paths}
    content = "\0".join(part for item in minified(sources, set(modules)).items() for part in item)
    return lzma.compress(content.encode(), lzma.FORMAT_ALONE, filters=[LZMA_FILTER])


def minified(sources: dict[str, str], whole: set[str]) -> dict[str, str]:
    """Modules that do the same in fewer bytes: attributes, and globals that other modules mention, keep their names.

    Of modules not in `whole` only what the others lead to is left. Literals stay where they are: hoisting them into names
    hides repetitions from the compressor.
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
    """Without docstrings and annotations, whose names would count as needed."""
    return python_minifier.minify(source, name, remove_literal_statements=True, hoist_literals=False, rename_locals=False)


def seal(pyz: bytes, settings: dict) -> bytes:
    """The same application with other settings, not a byte longer.

    Raises InputError when the settings' JSON exceeds its slot or `pyz` is damaged or not an application built here.
    """
    content = _slot(settings)
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


def sizes(pyz: bytes) -> dict[str, int]:
    """Where the bytes go: code_bytes (with the settings slot and the zip's own), tokenizer_bytes, weights_bytes, total.

    Raises InputError when `pyz` is not a zip or damaged.
    """
    stored = {entry.filename: entry.compress_size for entry in _entries(pyz)}
    tokenizer, weights = stored.get(TOKENIZER, 0), stored.get(WEIGHTS, 0)
    return {
        "code_bytes": len(pyz) - tokenizer - weights,
        "tokenizer_bytes": tokenizer,
        "weights_bytes": weights,
        "total": len(pyz),
    }


def _slot(settings: dict) -> bytes:
    content = json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()
    if len(content) > SETTINGS_BYTES:
        raise InputError(f"submission.pyz: the settings take {len(content)} bytes of JSON; their slot holds {SETTINGS_BYTES}")
    return content.ljust(SETTINGS_BYTES)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # dated 1980-01-01
    entry.create_system = 3  # Unix, wherever it is built
    return entry


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    """By the method that makes it smallest; the weights are coded already, and their bytes in the zip are those of the file."""
    sizes = {zipfile.ZIP_STORED: len(content)}
    for method in () if name == WEIGHTS else (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(io.BytesIO(), "w") as trial:
            trial.writestr(_entry(name), content, method, compresslevel=9)
            sizes[method] = trial.getinfo(name).compress_size
    archive.writestr(_entry(name), content, min(sizes, key=sizes.get), compresslevel=9)


def _entries(pyz: bytes) -> list[zipfile.ZipInfo]:
    """What is in it, once every checksum has been found right."""
    with reading(PLACE, "a zip application", Exception), zipfile.ZipFile(io.BytesIO(pyz)) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"'{damaged}' does not match its checksum")
        return archive.infolist()
