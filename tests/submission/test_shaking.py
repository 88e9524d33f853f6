"""Tree shaking: what running some modules can need stays, the rest goes."""

import ast

from fairway.submission.shaking import mentions, shaken


def shake(whole: set[str], **modules: str) -> dict[str, str]:
    trees = shaken({name: ast.parse(text) for name, text in modules.items()}, whole)
    return {name: ast.unparse(tree) for name, tree in trees.items()}


def test_definitions_are_followed_through_functions_classes_and_constants():
    code = shake(
        {"entry"},
        entry="from room import first\n\ndef main():\n    return first()",
        room="""
LIMIT, unused_constant = (3, 4)
WIDTH: int = 5
IDLE = 6

def first():
    return second(LIMIT)

def second(x, y=WIDTH):
    return Third

@decorated
class Third:
    size = fourth()

def fourth():
    return fourth()

def decorated(f):
    return f

def never():
    return never() + also_never()

def also_never():
    return IDLE
""",
    )
    assert code["entry"] == "from room import first\n\ndef main():\n    return first()"
    kept = {node.name for node in ast.parse(code["room"]).body if hasattr(node, "name")}
    assert kept == {"first", "second", "Third", "fourth", "decorated"}
    assert "LIMIT" in code["room"] and "WIDTH" in code["room"] and "IDLE" not in code["room"]


def test_attributes_strings_and_imports_inside_functions_count():
    room = "def by_attribute(): ...\n\ndef by_string(): ...\n\ndef by_import(): ...\n\ndef never(): ..."
    entry = """
import room
def main():
    from room import by_import as other
    return room.by_attribute() or getattr(room, 'by_string')
"""
    assert shake({"entry"}, entry=entry, room=room)["room"].count("def") == 3


def test_a_name_imported_under_another_leads_to_its_definition():
    code = shake(
        {"entry"},
        entry="from room import here\nhere",
        room="from far import there as here, elsewhere\nfrom far import never",
        far="there = 1\nelsewhere = 2\nnever = 3",
    )
    assert code["room"] == "from far import there as here"
    assert code["far"] == "there = 1"


def test_statements_that_bind_nothing_stay_with_what_they_mention():
    code = shake({"entry"}, entry="import os, sys\nprint(sys)", room="def ready(): ...\nif ready():\n    helper = 1\n")
    assert code == {"entry": "import sys\nprint(sys)", "room": "def ready():\n    ...\nif ready():\n    helper = 1"}


def test_mentions_are_all_ways_to_refer():
    tree = ast.parse("from a.b import c as d\nx.y = f('z', 3)")
    assert sorted(mentions(tree)) == ["c", "f", "x", "y", "z"]
