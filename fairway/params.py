"""Reads a section of params.yaml into its frozen dataclass.

Strict: an unknown key, a missing key (even one with a default), a value of the wrong type or out of range raises an
`InputError` that names the key, what is allowed and the nearest valid key. params.yaml is YAML 1.2, as for DVC: `1e-3` is
a number.
"""

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import pydantic
import yaml

from fairway.errors import InputError

Section = TypeVar("Section")
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[int]: "a list of whole numbers",
    list[float]: "a list of numbers",
    list[str]: "a list of texts",
    Any: 'a whole number at least 1, or "all"',  # of certify.tokens alone
}
WORDS = {
    "ge": "at least",
    "gt": "above",
    "le": "at most",
    "lt": "below",
    "multiple_of": "a multiple of",
    "min_length": "of length at least",
}


class Yaml12Loader(yaml.SafeLoader):
    """PyYAML, with the numbers and booleans of YAML 1.2 (DVC's dialect) instead of those of YAML 1.1."""


_CHANGED = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:int", "tag:yaml.org,2002:bool")
Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _CHANGED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT, _INT, _BOOL = _CHANGED
Yaml12Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
Yaml12Loader.add_implicit_resolver(_INT, re.compile(r"^[-+]?\d+$|^0o[0-7]+$|^0x[0-9a-fA-F]+$"), list("-+0123456789"))
Yaml12Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^[-+]?(?:\.\d+|\d+(?:\.\d*)?)[eE][-+]?\d+$|^[-+]?(?:\.\d+|\d+\.\d*)$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
Yaml12Loader.add_constructor(_INT, lambda loader, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10))


def read_yaml(path: Path | str) -> dict:
    """The mapping in a YAML file. Raises InputError when it cannot be read or is not a mapping."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); it holds every param of the pipeline") from None
    return parse_yaml(content, str(path))


def parse_yaml(text: bytes, source: str) -> dict:
    """The mapping in a YAML text. Raises InputError, which names the `source`, when there is none."""
    try:
        content = yaml.load(text.decode(), Loader=Yaml12Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise InputError(f"{source}{where}: not valid YAML ({problem})") from None
    if not isinstance(content, dict):
        raise InputError(f"{source}: expected a mapping of sections, found {type(content).__name__}")
    return content


def load(path: Path | str, section: str, cls: type[Section]) -> Section:
    """The section of a params file as an instance of `cls`, a frozen dataclass. Raises InputError."""
    return parse_section(read_yaml(path), section, cls, str(path))


def parse_section(sections: dict, section: str, cls: type[Section], source: str) -> Section:
    """The same of the content of a params file."""
    if section not in sections:
        raise InputError(f"{source}: section '{section}' is missing; found {', '.join(map(str, sections))}")
    return parse(sections[section], section, cls, source)


def parse(values: object, section: str, cls: type[Section], source: str = "params") -> Section:
    """A mapping as an instance of `cls`. Raises InputError naming the first invalid key."""
    if not isinstance(values, dict):
        raise InputError(f"{source}: section '{section}' must be a mapping of keys to values, found {values!r}")
    try:
        checked = _validator(cls)(**{str(key): value for key, value in values.items()})
    except pydantic.ValidationError as error:
        first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")  # a misspelt key is also missing
        raise InputError(_sentence(first, section, cls, source)) from None
    return cls(**{field.name: getattr(checked, field.name) for field in dataclasses.fields(cls)})


def _validator(cls: type) -> type[pydantic.BaseModel]:
    fields = {field.name: (field.type, pydantic.Field(**field.metadata)) for field in dataclasses.fields(cls)}
    config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    return pydantic.create_model(cls.__name__, __config__=config, **fields)


def _sentence(problem: dict, section: str, cls: type, source: str) -> str:
    key = ".".join([section, *map(str, problem["loc"])])
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][0]), fields, n=1, cutoff=0.0)[0]
        return f"{source}: unknown key '{key}'; the nearest valid key is '{section}.{near}'"
    expected = allowed(fields[problem["loc"][0]])
    if problem["type"] == "missing":
        return f"{source}: key '{key}' is missing; expected {expected}"
    return f"{source}: '{key}' is {problem['input']!r}; expected {expected}"


def allowed(field: dataclasses.Field) -> str:
    """The type and limits of a param, in words."""
    if get_origin(field.type) is Literal:
        return "one of " + ", ".join(map(str, get_args(field.type)))
    limits = [f"{WORDS[name]} {limit:,}" for name, limit in field.metadata.items()]
    return " ".join([KINDS[field.type], " and ".join(limits)]).strip()
