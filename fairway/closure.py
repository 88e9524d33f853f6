"""The static import closure of a module: the files of the repository that it needs, found by parsing, not by importing.

Imports inside functions count too. A package's `__init__.py` counts only if it is not empty.
"""

import ast
from pathlib import Path

from fairway.errors import InputError


def import_closure(module_or_file: str, root: Path) -> list[str]:
    """Sorted POSIX paths below `root` of the files that a module ("a.b") or file ("a/b.py") imports, itself included.

    Modules not found below `root` (the standard library, installed packages) are left out. Raises InputError if the module
    itself is not there.
    """
    start = Path(module_or_file) if module_or_file.endswith(".py") else _file_of(module_or_file, root)
    if start is None or not (root / start).is_file():
        raise InputError(f"{module_or_file}: no such module or file below {root}")
    found, waiting = set(), [start]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found.add(path)
        for name in _imported(path, root):
            waiting.extend(_files_of(name, root))
    return sorted(path.as_posix() for path in found)


def _imported(path: Path, root: Path) -> set[str]:
    """Dotted names that a file may import. `from a import b` gives both a and a.b, because b may be a module."""
    names = set()
    for node in ast.walk(ast.parse((root / path).read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = path.parts[:-1][: len(path.parts) - node.level] if node.level else ()
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return names


def _files_of(name: str, root: Path) -> list[Path]:
    """The file of a module, and the `__init__.py` files of the packages above it that are not empty."""
    parts = name.split(".")
    above = [Path(*parts[:depth], "__init__.py") for depth in range(1, len(parts))]
    own = _file_of(name, root)
    files = [path for path in above if (root / path).is_file()] + ([own] if own else [])
    return [path for path in files if path.name != "__init__.py" or (root / path).read_text(encoding="utf-8").strip()]


def _file_of(name: str, root: Path) -> Path | None:
    base = Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / path).is_file():
            return path
    return None
