"""Modules imported from memory: packages, files, sources, and that they come before others of the same name."""

import importlib
import lzma
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest

from fairway.submission.loader import Modules, install

SOURCES = {
    "attic": "NAME = 'said'",
    "attic.chest.map": "from . import key\nfrom .. import NAME\nplace = key.__name__",
    "attic.chest.key": "",
    "json": "shadowed = True",
}


PACKED = "\0".join(part for item in SOURCES.items() for part in item).encode()


def archive(folder: Path, code: bytes = lzma.compress(PACKED)) -> SimpleNamespace:
    """What install asks of a zipimporter."""
    with ZipFile(folder / "here.pyz", "w") as file:
        file.writestr("code", code)
        file.writestr("model.fwy", b"weights")
    return SimpleNamespace(archive=str(folder / "here.pyz"))


@pytest.fixture
def installed(tmp_path):
    before, modules = list(sys.meta_path), dict(sys.modules)
    sys.modules.pop("json")
    install(archive(tmp_path))
    yield
    sys.meta_path[:] = before
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def test_modules_are_imported_from_memory(installed, tmp_path):
    found = importlib.import_module("attic.chest.map")
    assert (found.place, found.NAME) == ("attic.chest.key", "said")
    assert found.__file__ == f"{tmp_path}/here.pyz/attic/chest/map.py"
    assert found.__loader__.get_source("attic.chest.map") == SOURCES["attic.chest.map"]
    assert find_spec("attic.chest").submodule_search_locations and not find_spec("attic.chest.map").submodule_search_locations


def test_they_come_before_others_of_the_same_name(installed):
    assert importlib.import_module("json").shadowed


def test_what_is_not_there_is_left_to_others(installed):
    with pytest.raises(ModuleNotFoundError, match=r"attic\.cellar"):
        importlib.import_module("attic.cellar")
    assert Modules(SOURCES, "here").find_spec("atti") is None


def test_no_module_is_imported_where_one_byte_is_wrong(tmp_path):
    given = archive(tmp_path)
    path, whole, finders = Path(given.archive), Path(given.archive).read_bytes(), list(sys.meta_path)
    for place in (whole.index(b"weights"), whole.index(lzma.compress(PACKED)) + 9, whole.index(b"PK\1\2"), len(whole) - 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(SystemExit, match=rf"^error: {path}: damaged \(.+\); fetch the file again$"):
            install(given)
    with pytest.raises(SystemExit, match=r"^error: .+here\.pyz: damaged \(.+\); fetch the file again$"):
        install(archive(tmp_path, b"no LZMA"))
    assert sys.meta_path == finders


def test_a_traceback_points_into_the_source():
    place = Modules({"attic": "x = 1\nraise ValueError(x)"}, "here")
    with pytest.raises(ValueError) as caught:
        exec(place.get_code("attic"), {})
    assert (caught.tb.tb_next.tb_frame.f_code.co_filename, caught.tb.tb_next.tb_lineno) == ("here/attic.py", 2)
