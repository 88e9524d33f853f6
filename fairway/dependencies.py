"""The code dependencies of every stage in dvc.yaml, written from the import closure of its script.

`python -m fairway.dependencies` rewrites the `.py` entries of all `deps` in dvc.yaml and leaves every other line as it is.
"""

import re
from pathlib import Path

from fairway.closure import import_closure
from fairway.submission.packing import MODULES

PACKED = {"compress": MODULES}  # code that a stage does not import but packs
STAGE = re.compile(r"  (\w+):")
CODE = re.compile(r"      - \S+\.py")


def updated(text: str, root: Path) -> str:
    """The text of a dvc.yaml with the code dependencies that the files below `root` have."""
    lines, stage, in_deps = [], "", False
    for line in text.splitlines():
        if in_deps and not line.startswith("      "):
            lines += [f"      - {path}" for path in code_of(stage, root)]
            in_deps = False
        if match := STAGE.fullmatch(line):
            stage = match[1]
        if not (in_deps and CODE.fullmatch(line)):
            lines.append(line)
        in_deps = in_deps or line == "    deps:"
    return "\n".join(lines) + "\n"


def code_of(stage: str, root: Path) -> list[str]:
    """Paths of the code that a stage runs or packs, sorted."""
    modules = [f"stages/{stage}.py", *PACKED.get(stage, [])]
    return sorted({path for module in modules for path in import_closure(module, root)})


if __name__ == "__main__":
    path = Path("dvc.yaml")
    path.write_text(updated(path.read_text(encoding="utf-8"), Path()), encoding="utf-8")
