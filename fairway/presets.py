"""Overlays of params.yaml: a published system (a preset), the size of a machine (a scale).

`python -m fairway.presets list` shows them; `python -m fairway.presets pr885 laptop` writes them into params.yaml, in
that order, and keeps its comments and its layout (yaml_edit.py). An overlay is a file in presets/ with only the sections
and keys that it sets. A preset names, with `extends`, the overlay that it changes, and starts with all of `model` at its
defaults, off; a scale extends nothing. Nothing is written unless the whole result is valid.
"""

import copy
import dataclasses
import difflib
import json
import sys
from pathlib import Path

from fairway.errors import InputError, reading
from fairway.files import replacing
from fairway.lm.config import Architecture, Model
from fairway.params import parse, read_yaml
from fairway.sections import SECTIONS, check, check_sections
from fairway.yaml_edit import edited

FOLDER = Path(__file__).resolve().parents[1] / "presets"
PARAMS = Path("params.yaml")
OFF = dataclasses.asdict(Model())


def overlays() -> dict[str, Path]:
    """The overlay files by name: presets, then all others; short names first, so that numbers are in order."""
    paths = sorted(FOLDER.glob("*.yaml"), key=lambda path: (not is_preset(path), len(path.stem), path.stem))
    return {path.stem: path for path in paths}


def is_preset(path: Path) -> bool:
    return "extends" in read_yaml(path)


def lineage(path: Path) -> list[Path]:
    """An overlay after all that it extends, in order of application. Raises InputError for an unknown base or a circle."""
    found = [path]
    while base := read_yaml(found[0]).get("extends"):
        with reading(f"presets/{found[0].name}", "an overlay"):
            parent = find(str(base))
            if parent in found:
                raise InputError(f"extends '{base}', which extends it in turn; expected a base that does not")
        found.insert(0, parent)
    return found


def content(path: Path) -> dict[str, dict]:
    """The sections that an overlay sets, inherited keys included. Raises InputError for a section that is no mapping."""
    sections = {"model": OFF} if is_preset(path) else {}
    for source in lineage(path):
        for name, values in read_yaml(source).items():
            if name != "extends":
                sections[name] = sections.get(name, {}) | mapping(values, name, source)
    return sections


def mapping(values: object, section: str, source: Path) -> dict:
    if not isinstance(values, dict):
        raise InputError(f"presets/{source.name}: section '{section}' must be a mapping of keys to values, found {values!r}")
    return values


def find(name: str) -> Path:
    """The file of a preset or scale. Raises InputError with the nearest name for an unknown one."""
    known = overlays()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no preset or scale '{name}'; the nearest is '{near}' of {', '.join(known)}")
    return known[name]


def description(path: Path) -> str:
    """The first line of an overlay, a comment."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def merge(params: Path, chosen: list[Path]) -> list[str]:
    """Apply overlays to a params file, in order. Returns one line per changed key.

    Raises InputError and leaves the file unchanged if an overlay or the result is not valid.
    """
    check(str(params))  # so that no overlay is blamed for a mistake that was there before
    before, content = read_yaml(params), params.read_bytes()
    merged = copy.deepcopy(before)
    for preset_or_scale in chosen:
        change(merged, {"model": OFF} if is_preset(preset_or_scale) else {})
        for path in lineage(preset_or_scale):
            overlay = {name: values for name, values in read_yaml(path).items() if name != "extends"}
            check_overlay(overlay, merged, path)
            change(merged, overlay)
    check_sections(merged, str(params))
    changes = {
        section: {key: value for key, value in values.items() if key not in before[section] or value != before[section][key]}
        for section, values in merged.items()
    }
    with replacing(params) as temporary:
        temporary.write_bytes(edited(content, changes, str(params)))
    return [
        f"{section}.{key}: {shown(before[section][key])} → {shown(value)}"
        for section, values in changes.items()
        for key, value in values.items()
    ]


def change(params: dict[str, dict], overlay: dict[str, dict]) -> None:
    """Set the keys of an overlay."""
    for section, values in overlay.items():
        params[section].update(values)


def check_overlay(overlay: dict, params: dict[str, dict], path: Path) -> None:
    """Raises InputError naming the overlay's file for an unknown section or key or an invalid value."""
    source = f"presets/{path.name}"
    for section, values in overlay.items():
        if section not in SECTIONS:
            raise InputError(f"{source}: unknown section '{section}'; valid sections are {', '.join(SECTIONS)}")
        parse(params[section] | mapping(values, section, path), section, SECTIONS[section], source)


def shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def parameters(preset: Path) -> tuple[int, int]:
    """Parameters of a preset's network at full size, without and with the multi-token heads that only training uses."""
    import torch  # takes seconds, and merging does not need it

    from fairway.lm.model import GPT

    own, shipped = content(preset), read_yaml(FOLDER.parent / "params.yaml")
    sections = {name: values | own.get(name, {}) for name, values in shipped.items()}
    model = parse(sections["model"], "model", Model, str(preset))
    vocabulary_size = sections["tokenize"]["vocabulary_size"]
    sizes = {"vocabulary_size": vocabulary_size, "bos": 1, "sequence_length": sections["train"]["sequence_length"]}
    with torch.device("meta"):
        network = GPT(Architecture(**dataclasses.asdict(model), **sizes))
    count = sum(parameter.numel() for parameter in network.parameters())
    return count, count + sections["train"]["mtp_heads"] * vocabulary_size * model.width


def table() -> str:
    """The overlays, one per line: presets with their parameters at full size, then scales."""
    presets, scales, known = [], [], overlays()
    bases = {read_yaml(path).get("extends") for path in known.values()}
    for name, path in known.items():
        if not is_preset(path):
            scales += [] if name in bases else [f"{name:<10}{description(path)}"]
            continue
        count, in_training = parameters(path)
        heads = f" ({in_training:,} with its multi-token heads)" if in_training > count else ""
        presets.append(f"{name:<10}{count:>10,}  {description(path)}{heads}")
    return "\n".join(["preset    parameters", *presets, "", "scale", *scales])


def main(names: list[str]) -> None:
    if not names:
        raise InputError(f"no preset or scale is named; expected 'list', or any of {', '.join(overlays())}")
    if names == ["list"]:
        print(table())
        return
    changes = merge(PARAMS, [find(name) for name in names])
    print("\n".join(changes or [f"{PARAMS}: already so"]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")
