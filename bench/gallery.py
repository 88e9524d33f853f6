"""The rogues' gallery as a table: which cheats and bugs of the challenge were tried, and what the certificate says of each.

Each goes through the real stages of a tiny course (tests/gallery/course.py), whose chatter goes to standard error. Exits
with 1 if one got through, or was refused for another reason than its own. Run: python -m bench.gallery > gallery.md
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from tests.gallery import course, rogues_artifact, rogues_data, rogues_score

GALLERY = {"the score": rogues_score, "data, bytes and time": rogues_data, "the artifact": rogues_artifact}


def judge(rogue: course.Rogue, honest: Path) -> tuple[bool, list[str]]:
    """Whether a rogue is refused for its own reasons, and the cells of its row."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        found = course.failing(course.judged(rogue, honest, place))
    caught = course.for_its_own_reasons(rogue, found)
    reasons = "; ".join(f"{claim}: {result}" for claim, result in found.items())
    reasons = reasons.replace(str(place), "…").replace(str(course.ROOT), "…")
    return caught, [rogue.name, rogue.source, reasons if caught else f"**{reasons or 'it got through'}**"]


def main() -> int:
    table, tried, refused = sys.stdout, 0, 0
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as folder,
        course.honest_course(Path(folder)) as certificate,
    ):
        if not certificate["legal"]:
            sys.exit(f"error: the honest course is refused: {'; '.join(certificate['reasons'])}")
        for title, rogues in GALLERY.items():
            print(f"## Rogues of {title}\n\n| cheat | known from | refused because |\n|---|---|---|", file=table)
            for rogue in rogues.ROGUES:
                caught, cells = judge(rogue, Path(folder))
                tried, refused = tried + 1, refused + caught
                row = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
                print(f"| {' | '.join(row)} |", file=table, flush=True)
            print(file=table)
    print(f"figure gallery.tried = {tried}\nfigure gallery.refused = {refused}")
    return int(refused < tried)


if __name__ == "__main__":
    sys.exit(main())
