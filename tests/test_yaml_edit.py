"""Values in a YAML text change, whatever its style, and nothing else does."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import modify_yaml
from hypothesis import given
from hypothesis import strategies as st

from fairway import presets
from fairway.errors import InputError
from fairway.params import parse_yaml, read_yaml
from fairway.yaml_edit import edited

ROOT = Path(__file__).resolve().parents[1]
KEYS = ["bits", "name", "betas", "on"]
WORDS = st.text(st.sampled_from("ab 1e-.:#,[]{}&*!|>'\"%@\\é\t"), max_size=8)
ODD = st.sampled_from([None, True, "1e-3", "yes", "012", ".inf"])
SCALARS = st.one_of(st.integers(-9, 999), st.floats(allow_nan=False), ODD, WORDS)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from("xyz"), SCALARS, max_size=2))
CONTENTS = st.dictionaries(st.sampled_from("st"), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1), min_size=1)


@st.composite
def written(draw, content: dict) -> str:
    """A YAML text of a content of two levels, each part in a style of its own, with comments."""
    lines = draw(st.sampled_from([[], ["---"], ["# top"], ["%YAML 1.2", "---"]]))
    for number, (section, values) in enumerate(content.items()):
        if draw(st.booleans()):
            lines.append(f"{section}: {json.dumps(values)}  # flow{number}")
            continue
        lines.append(f"{section}:{draw(st.sampled_from(['', '  # section']))}")
        for key, value in values.items():
            lines += draw(entry(key, value))
            lines += draw(st.sampled_from([[], ["", "  # between"]]))
    return draw(st.sampled_from(["\n", "\r\n"])).join([*lines, ""])


@st.composite
def entry(draw, key: str, value: object) -> list[str]:
    note = draw(st.sampled_from(["", f"  # of {key}"]))
    if isinstance(value, list) and value and draw(st.booleans()):
        indent = draw(st.sampled_from(["  ", "    "]))
        return [
            f"  {key}:{note}",
            *(f"{indent}- {json.dumps(item)}{draw(st.sampled_from(['', '  # item']))}" for item in value),
        ]
    if isinstance(value, dict) and value and draw(st.booleans()):
        return [f"  {key}:{note}", *(f"    {name}: {json.dumps(item)}" for name, item in value.items())]
    if value is None and draw(st.booleans()):
        return [f"  {key}:{note}"]
    if isinstance(value, str) and value.isalpha() and draw(st.booleans()):
        return [f"  {key}: |-{note}", f"    {value}"]
    quotes = isinstance(value, str) and draw(st.booleans())
    return [f"  {key}: {chr(39) + value.replace(chr(39), 2 * chr(39)) + chr(39) if quotes else json.dumps(value)}{note}"]


@given(st.data(), CONTENTS)
def test_any_style_of_any_value(data, content):
    text = data.draw(written(content))
    content = parse_yaml(text.encode(), "it")
    changes = {
        section: data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(values, VALUES)))
        for section, values in content.items()
    }
    result = edited(text.encode(), changes, "it")
    assert parse_yaml(result, "it") == {section: values | changes[section] for section, values in content.items()}
    for line in text.splitlines():
        note = line[line.rindex("#") :] if "  # " in line and "item" not in line else "#" if "# between" in line else ""
        assert note in result.decode()
    if not any(changes.values()):
        assert result == text.encode()


@pytest.mark.parametrize(
    ("before", "changes", "after"),
    [
        ("s:\n  a: [1, 2]  # two\n  b: 3\n", {"a": [3]}, "s:\n  a: [3]  # two\n  b: 3\n"),
        ("s:\n  a:  # two\n  - 1\n  - 2\n  # of b\n  b: 3\n", {"a": [3]}, "s:\n  a: [3]  # two\n  # of b\n  b: 3\n"),
        ("s:\n  a:\n  b: 3\n", {"a": "1e-3"}, "s:\n  a: '1e-3'\n  b: 3\n"),
        ("s: {a: x, b: [1]}\n", {"a": "y, z"}, "s: {a: 'y, z', b: [1]}\n"),
        ("s: &s\n  a: 1\nt:\n  <<: *s\n  b: 2\n", {"a": 3}, "s: &s\n  a: 3\nt:\n  <<: {a: 1}\n  b: 2\n"),
        ("s:\n  a: &x 1e-5\n  b: *x\n", {"b": 2}, "s:\n  a: &x 1e-5\n  b: 2\n"),
        ("s:\n  a: &x 1e-5\n  b: *x\n", {"a": 2}, "s:\n  a: 2\n  b: 1e-05\n"),
        ("t: &t {a: 1}\ns:\n  <<: *t\n  b: 2\n", {"a": 5}, "t: &t {a: 1}\ns:\n  a: 5\n  <<: {a: 1}\n  b: 2\n"),
    ],
)
def test_what_is_written(before, changes, after):
    assert edited(before.encode(), {"s": changes}, "it").decode() == after


def test_a_key_that_is_there_twice_is_named():
    with pytest.raises(InputError, match=r"^it, line 3: 'a' is there twice; remove one of them$"):
        edited(b"s:\n  a: 1\n  a: 2\n", {"s": {"a": 3}}, "it")


@pytest.mark.parametrize("name", sorted(presets.overlays().keys() - {"challenge"}))  # which is only a base
def test_a_preset_after_an_experiment_of_dvc(name, tmp_path):
    """DVC has written the file anew: flow lists are block lists and their comments have moved."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    with modify_yaml(str(tmp_path / "params.yaml")) as content:
        content["quant"]["bits"] = 5
        for values in content.values():
            values.update({key: list(value) for key, value in values.items() if isinstance(value, list)})
    assert "    - data/*.jsonl.zst\n" in (tmp_path / "params.yaml").read_text(encoding="utf-8").replace("  - ", "    - ")
    presets.merge(tmp_path / "params.yaml", [presets.find(name)])
    plain = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    assert plain.keys() == read_yaml(ROOT / "params.yaml").keys()
    wanted = presets.content(presets.find(name))
    found = read_yaml(tmp_path / "params.yaml")
    assert all(found[section][key] == value for section, values in wanted.items() for key, value in values.items())
