"""Tree shaking: keep only the definitions of some modules that running them can need.

It works on bare names and keeps too much rather than too little: a definition stays if its name is mentioned anywhere, in any
module. It removes encoders and training code, which the import closure includes because it consists of whole files.
Imports are assumed to have no side effects; names that are built at run time (getattr of a sum of strings) are not seen.
"""

import ast
from collections import defaultdict
from collections.abc import Iterator

IMPORTS = (ast.Import, ast.ImportFrom)


def shaken(modules: dict[str, ast.Module], whole: set[str]) -> dict[str, ast.Module]:
    """The same modules without the top-level definitions, constants and imports that the modules in `whole` do not need.

    Statements that bind no name (an `if`, a call) stay, with everything they mention; unused imports are removed everywhere.
    """
    statements = {name: [part for node in tree.body for part in _parts(node)] for name, tree in modules.items()}
    binding, waiting, kept = defaultdict(list), [], set()
    for name, nodes in statements.items():
        for node in nodes:
            for bound in _bound(node):
                binding[bound].append(node)
            if not _bound(node) or (name in whole and not isinstance(node, IMPORTS)):
                waiting.append(node)
    while waiting:
        node = waiting.pop()
        if node not in kept:
            kept.add(node)
            waiting.extend(other for name in mentions(node) for other in binding[name])
    return {name: ast.Module([node for node in nodes if node in kept], []) for name, nodes in statements.items()}


def mentions(tree: ast.AST) -> Iterator[str]:
    """Every name, attribute, imported name and string in a piece of code: each may refer to a definition."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=str(name)):
                yield name
            case ast.alias(name=name):
                yield from name.split(".")


def _parts(node: ast.stmt) -> list[ast.stmt]:
    """An import of several names as several imports; anything else as it is."""
    match node:
        case ast.Import(names=names):
            return [ast.Import([alias]) for alias in names]
        case ast.ImportFrom(module=module, names=names, level=level):
            return [ast.ImportFrom(module, [alias], level) for alias in names]
    return [node]


def _bound(node: ast.stmt) -> set[str]:
    """The names that a definition, assignment or import binds; empty for other statements."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=[alias]) | ast.ImportFrom(names=[alias]):
            return {alias.asname or alias.name.split(".")[0]}
        case ast.Assign() | ast.AnnAssign():
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
    return set()
