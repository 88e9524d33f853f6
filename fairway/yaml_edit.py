"""New values in a YAML text; every other character stays: comments, layout, quotes, line ends.

A value is replaced where the parser's marks say it stands, so the text may be written in any style: block or flow, by hand
or by DVC, whose `exp run --set-param` turns flow lists into block lists.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from fairway.errors import InputError
from fairway.params import Yaml12Loader, parse_yaml

Span = tuple[int, int, str]  # characters from and to, and the text that takes their place


class _Composer(Yaml12Loader):
    """Remembers where each alias stands; the marks of its node are those of the anchor."""

    def __init__(self, text: str):
        super().__init__(text)
        self.aliases: list[tuple[yaml.AliasEvent, yaml.Node]] = []

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        event = self.peek_event()
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            self.aliases.append((event, node))
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes a text that YAML 1.2 would read as another type, and writes numbers as Python does."""

    yaml_implicit_resolvers = Yaml12Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(float, lambda dumper, value: dumper.represent_scalar("tag:yaml.org,2002:float", repr(value)))


def edited(content: bytes, changes: dict[str, dict[str, Any]], source: str) -> bytes:
    """`content` with other values for the given keys of its sections; all sections are there already.

    Comments inside a list that changes are lost; aliases are written out. Raises InputError, which names the `source`, for
    a key that is there twice in a section.
    """
    expected = copy.deepcopy(parse_yaml(content, source))
    for section, values in changes.items():
        expected[section].update(values)
    text = _without_aliases(content.decode())
    changed = _replaced(text, _spans(text, changes, source)).encode()
    if parse_yaml(changed, source) != expected:
        raise AssertionError(f"{source}: the edited text says something else")
    return changed


def _without_aliases(text: str) -> str:
    composer = _Composer(text)
    composer.get_single_node()
    values = ((event, composer.construct_document(node)) for event, node in composer.aliases)
    return _replaced(text, [(event.start_mark.index, event.end_mark.index, _flow(value)) for event, value in values])


def _spans(text: str, changes: dict[str, dict[str, Any]], source: str) -> Iterator[Span]:
    sections = _pairs(yaml.compose(text, Loader=Yaml12Loader), source)
    for section, values in changes.items():
        mapping = sections[section][1]
        found = _pairs(mapping, source)
        for name, value in values.items():
            yield _value_span(text, *found[name], value) if name in found else _new_span(mapping, name, value)


def _pairs(mapping: yaml.MappingNode, source: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The key and value nodes of a mapping, by key."""
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in mapping.value:
        if key.value in found:
            raise InputError(f"{source}, line {key.start_mark.line + 1}: '{key.value}' is there twice; remove one of them")
        found[key.value] = key, value
    return found


def _value_span(text: str, key: yaml.Node, node: yaml.Node, value: Any) -> Span:
    """The value of a key."""
    start, end, written = node.start_mark.index, _end(node), " " + _flow(value)
    rest = text[start:end]
    if node.style in ("|", ">") if isinstance(node, yaml.ScalarNode) else not node.flow_style:
        start = text.index(":", key.end_mark.index) + 1  # its lines go, the comment beside the key stays
        comment = re.match(r"[^\S\r\n]*(?:[&!|>][^\s#]*[^\S\r\n]*)*(#[^\r\n]*)?", text[start:])[1]
        written += f"  {comment}" if comment else ""
    elif text[start - 1] == " ":
        start -= 1
    return start, end, written + rest[len(rest.rstrip()) :]  # a literal block ends after its line


def _new_span(mapping: yaml.MappingNode, name: str, value: Any) -> Span:
    """A key that the mapping only inherits (`<<`) goes before its first one."""
    first = mapping.value[0][0].start_mark
    after = ", " if mapping.flow_style else "\n" + " " * first.column
    return first.index, first.index, f"{name}: {_flow(value)}{after}"


def _end(node: yaml.Node) -> int:
    """The index after the last character; the mark of a block collection lies after the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        return node.end_mark.index
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _flow(value: Any) -> str:
    """On one line, quoted as it must be inside of brackets."""
    listed = yaml.dump(
        [value], Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return listed.strip()[1:-1]


def _replaced(text: str, spans: Iterable[Span]) -> str:
    for start, end, written in sorted(spans, reverse=True):
        text = text[:start] + written + text[end:]
    return text
