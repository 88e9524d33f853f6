"""Modules imported from memory: packages, files, sources, and that they come before others of the same name."""

import importlib
import lzma
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from fairway.codec.loader import Modules, install

SOURCES = {
    "attic": "NAME = 'said'",
    "attic.chest.map": "from . import key\nfrom .. import NAME\nplace = key.__name__",
    "attic.chest.key": "",
    "json": "shadowed = True",
}


@pytest.fixture
def installed():
    before, modules = list(sys.meta_path), dict(sys.modules)
    sys.modules.pop("json")
    packed = "\0".join(part for item in SOURCES.items() for part in item).encode()
    install(SimpleNamespace(get_data={"code": lzma.compress(packed)}.__getitem__, archive="here.pyz"))
    yield
    sys.meta_path[:] = before
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def test_modules_are_imported_from_memory(installed):
    found = importlib.import_module("attic.chest.map")
    assert (found.place, found.NAME) == ("attic.chest.key", "said")
    assert found.__file__ == "here.pyz/attic/chest/map.py"
    assert found.__loader__.get_source("attic.chest.map") == SOURCES["attic.chest.map"]
    assert find_spec("attic.chest").submodule_search_locations and not find_spec("attic.chest.map").submodule_search_locations


def test_they_come_before_others_of_the_same_name(installed):
    assert importlib.import_module("json").shadowed


def test_what_is_not_there_is_left_to_others(installed):
    with pytest.raises(ModuleNotFoundError, match=r"attic\.cellar"):
        importlib.import_module("attic.cellar")
    assert Modules(SOURCES, "here").find_spec("atti") is None


def test_a_traceback_points_into_the_source():
    place = Modules({"attic": "x = 1\nraise ValueError(x)"}, "here")
    with pytest.raises(ValueError) as caught:
        exec(place.get_code("attic"), {})
    assert (caught.tb.tb_next.tb_frame.f_code.co_filename, caught.tb.tb_next.tb_lineno) == ("here/attic.py", 2)
