"""`submission.pyz`: one Python zip application with the runtime code, the tokenizer and the weights.

The code is the import closure of the entry modules, minified: names that other modules use stay, comments, docstrings
and annotations go, except those of class attributes, which are the fields of dataclasses. Same input, same bytes: fixed
order, dates of 1980. The predictor's settings, unknown until the evaluation has run, have a slot of fixed size at the
end, so that sealing them in changes neither the size nor any other byte's place.
"""

import ast
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import python_minifier

from fairway.codec.closure import import_closure
from fairway.errors import InputError

SETTINGS = "settings.json"
SETTINGS_BYTES = 1024
TOKENIZER = "tokenizer.model"
WEIGHTS = "model.fwy"
MAIN = "import sys\nfrom {entry} import main\nsys.exit(main(sys.argv[1:]))\n"
# Of the zip format: a central entry and the end record without name, and where the CRC-32 lies in each header.
CENTRAL_BYTES, END_BYTES, LOCAL_BYTES = 46, 22, 30
CENTRAL_CRC, LOCAL_CRC = 16, 14


def build(modules: list[str], members: dict[str, bytes], root: Path) -> bytes:
    """A zip application that runs `main(argv)` of the first module, with the closure of all `modules` below `root`.

    `members` go in under their names beside the code, deflated where that helps. The settings slot holds {}.
    Raises InputError when a module is not there.
    """
    files = sorted({path for module in modules for path in import_closure(module, root)})
    packages = {parent.as_posix() + "/__init__.py" for path in files for parent in Path(path).parents if parent != Path()}
    code = {path: minify((root / path).read_text(encoding="utf-8"), path) for path in files}
    code = dict.fromkeys(packages, "") | code | {"__main__.py": MAIN.format(entry=modules[0])}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(code):
            _add(archive, path, code[path].encode())
        for name in sorted(members):
            _add(archive, name, members[name])
        archive.writestr(_entry(SETTINGS), _slot({}))
    return stream.getvalue()


def minify(source: str, path: str) -> str:
    """Python code that does the same in fewer bytes; global names and the fields of dataclasses stay.

    Numba's `cache=True` goes: it stores machine code beside the source file, and raises inside a zip, which has no beside.
    """
    tree = ast.parse(source, path)
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", ()):
            if isinstance(decorator, ast.Call):
                decorator.keywords = [keyword for keyword in decorator.keywords if keyword.arg != "cache"]
    return python_minifier.minify(ast.unparse(tree), path, remove_literal_statements=True, rename_globals=False)


def seal(pyz: bytes, settings: dict) -> bytes:
    """The same application with other settings, not a byte longer.

    Raises InputError when the settings' JSON exceeds its slot or `pyz` is not an application built here.
    """
    content = _slot(settings)
    *_, entry = [None, *_entries(pyz)]
    if entry is None or entry.filename != SETTINGS or entry.file_size != SETTINGS_BYTES:
        found = f"found '{entry.filename}'" if entry else "found an empty zip"
        raise InputError(f"submission.pyz: expected '{SETTINGS}' of {SETTINGS_BYTES} bytes last, {found}")
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

    Raises InputError when `pyz` is not a zip.
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
    smaller = len(_deflated(content)) < len(content)
    archive.writestr(_entry(name), content, zipfile.ZIP_DEFLATED if smaller else zipfile.ZIP_STORED, compresslevel=9)


def _deflated(content: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)  # as zipfile does it
    return deflater.compress(content) + deflater.flush()


def _entries(pyz: bytes) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(io.BytesIO(pyz)) as archive:
            return archive.infolist()
    except zipfile.BadZipFile as error:
        raise InputError(f"submission.pyz: not a zip application ({error}); run `dvc repro compress` again") from None
