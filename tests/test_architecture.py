"""docs/architecture.md tells the truth: layers and imports of the packages, and the files that go from stage to stage."""

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PACKAGES, DATA = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
Edges = dict[str, set[str]]


def package(module: str) -> str:
    """`fairway.lm.model` → `lm`, `fairway.params` → `params`, `stages.train` → `stages`."""
    first, *rest = module.split(".")
    return rest[0] if first == "fairway" and rest else first


@pytest.fixture(scope="module")
def imports() -> Edges:
    """Direct imports between packages; of modules that are not in one, none."""
    graph, edges = grimp.build_graph("fairway", "stages"), defaultdict(set)
    packages = {path.parent.name for path in [*ROOT.glob("fairway/*/__init__.py"), ROOT / "stages/__init__.py"]}
    for module in graph.modules:
        for imported in graph.find_modules_directly_imported_by(module):
            edges[package(module)].add(package(imported))
    return {name: (edges[name] & packages) - {name} for name in packages}


def reachable(edges: Edges, start: str) -> set[str]:
    found, waiting = set(), [start]
    while waiting:
        new = edges.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def drawn() -> Edges:
    edges = defaultdict(set)
    for importer, imported in re.findall(r"^  (\w+) --> (\w+)$", PACKAGES, re.MULTILINE):
        edges[importer].add(imported)
    return edges


def test_the_layers_are_those_that_import_linter_holds():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    groups = re.findall(r"^  subgraph .*\n((?:    \w+\n)+)  end$", PACKAGES, re.MULTILINE)
    assert [group.split() for group in groups] == [[package(name) for name in layer.split(" | ")] for layer in layers]


def test_every_module_has_a_layer(imports):
    modules = {path.stem for path in ROOT.glob("fairway/*.py")} - {"__init__"}
    assert set(re.findall(r"^    (\w+)$", PACKAGES, re.MULTILINE)) == modules | set(imports)


def test_the_arrows_are_the_imports(imports):
    """Each package reaches what it imports, by itself or through others; and no arrow follows from others."""
    edges = drawn()
    assert {name: reachable(edges, name) for name in imports} == {name: reachable(imports, name) for name in imports}
    for importer, others in edges.items():
        for imported in others:
            assert not any(imported in reachable(edges, other) for other in others), f"{importer} --> {imported} follows"


def test_every_package_has_its_sentence(imports):
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(imports)


def test_the_files_between_stages_are_those_of_dvc():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    files = defaultdict(list)
    for consumer, stage in stages.items():
        for path in stage["deps"]:
            if path.startswith("artifacts/"):
                _, producer, name = path.split("/")
                files[producer, consumer].append(name)
    expected = {f'{a} -- "{", ".join(sorted(names))}" --> {b}' for (a, b), names in files.items()}
    assert {line.strip() for line in DATA.splitlines()[1:]} == expected
