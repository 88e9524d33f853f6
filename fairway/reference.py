"""Generates docs/params.md: every param with its type and range, its default, and its comment in params.yaml.

`python -m fairway.reference > docs/params.md` writes the page. Types and ranges come from the dataclasses, defaults and
comments from params.yaml, and the readers of a section from dvc.yaml, so that nothing is written twice.
"""

import dataclasses
import json
import re
from pathlib import Path

from fairway.markdown import table
from fairway.params import allowed, read_yaml
from fairway.sections import SECTIONS

INTRODUCTION = """# Params

Generated from `params.yaml`, the types that check it, and `dvc.yaml`; do not edit. After a change of any of them:

```
python -m fairway.reference > docs/params.md
```

Defaults are those of the shipped `params.yaml`. A value out of range, a misspelt or a missing key stops every stage before
its work, with one sentence. `dvc exp run -S section.key=value` sets one for one run.
"""
SECTION = re.compile(r"(\w+):(?:\s+# (.*))?")
KEY = re.compile(r"  (\w+): .*?(?:\s# (.*))?")
CONTINUED = re.compile(r"\s{3,}# (.*)")


def comments(text: str) -> dict[str, str]:
    """The comments of a params.yaml by "section" and by "section.key"; "" where there is none."""
    found: dict[str, str] = {}
    section = last = ""
    for line in text.splitlines():
        if match := SECTION.fullmatch(line):
            section = last = match[1]
            found[last] = match[2] or ""
        elif match := KEY.fullmatch(line):
            last = f"{section}.{match[1]}"
            found[last] = match[2] or ""
        elif match := CONTINUED.fullmatch(line):
            found[last] += f" {match[1]}"
    return found


def readers(section: str, stages: dict[str, dict]) -> str:
    """The stages that declare a section, or some of its keys, in dvc.yaml; in the order of the pipeline."""
    words = []
    for stage, content in stages.items():
        keys = content.get("params", [])
        parts = [key.removeprefix(f"{section}.") for key in keys if key.startswith(f"{section}.")]
        if section in keys or parts:
            words.append(f"`{stage}`" + (f" (`{', '.join(parts)}` only)" if parts else ""))
    return ", ".join(words)


def page(folder: Path) -> str:
    """The whole page, from the params.yaml and the dvc.yaml in a folder."""
    values, stages = read_yaml(folder / "params.yaml"), read_yaml(folder / "dvc.yaml")["stages"]
    said = comments((folder / "params.yaml").read_text(encoding="utf-8"))
    blocks = [INTRODUCTION]
    for section, cls in SECTIONS.items():
        note = said[section] and f"{said[section][0].upper()}{said[section][1:]}.\n\n"
        head = f"## {section}\n\n{note}Read by {readers(section, stages)}.\n\n"
        fields = {field.name: field for field in dataclasses.fields(cls)}
        rows = [
            [f"`{key}`", allowed(fields[key]), f"`{json.dumps(default, ensure_ascii=False)}`", said[f"{section}.{key}"]]
            for key, default in values[section].items()
        ]
        blocks.append(head + table(["param", "type and range", "default", "comment"], rows) + "\n")
    return "\n".join(blocks)


if __name__ == "__main__":
    print(page(Path()), end="")
