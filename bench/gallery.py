"""The cheats' gallery as a table: which cheats and bugs of the challenge were tried, and what the certificate says of each.

Each goes through the real stages of a tiny pipeline (tests/gallery/pipeline.py), whose chatter goes to standard error. Exits
with 1 if one got through, or was refused for another reason than its own. Run: python -m bench.gallery > gallery.md
"""

import contextlib
import sys
import tempfile
from pathlib import Path

from tests.gallery import cheats_artifact, cheats_data, cheats_score, pipeline

GALLERY = {"the score": cheats_score, "data, bytes and time": cheats_data, "the artifact": cheats_artifact}


def judge(cheat: pipeline.Cheat, honest: Path) -> tuple[bool, list[str]]:
    """Whether a cheat is refused for its own reasons, and the cells of its row."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        found = pipeline.failing(pipeline.judged(cheat, honest, place))
    caught = pipeline.for_its_own_reasons(cheat, found)
    reasons = "; ".join(f"{claim}: {result}" for claim, result in found.items())
    reasons = reasons.replace(str(place), "…").replace(str(pipeline.ROOT), "…")
    return caught, [cheat.name, cheat.source, reasons if caught else f"**{reasons or 'it got through'}**"]


def main() -> int:
    table, tried, refused = sys.stdout, 0, 0
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as folder,
        pipeline.honest_pipeline(Path(folder)) as certificate,
    ):
        if not certificate["legal"]:
            sys.exit(f"error: the honest pipeline is refused: {'; '.join(certificate['reasons'])}")
        for title, cheats in GALLERY.items():
            print(f"## Cheats of {title}\n\n| cheat | known from | refused because |\n|---|---|---|", file=table)
            for cheat in cheats.CHEATS:
                caught, cells = judge(cheat, Path(folder))
                tried, refused = tried + 1, refused + caught
                row = [" ".join(cell.split()).replace("|", "\\|") for cell in cells]
                print(f"| {' | '.join(row)} |", file=table, flush=True)
            print(file=table)
    print(f"figure gallery.tried = {tried}\nfigure gallery.refused = {refused}")
    return int(refused < tried)


if __name__ == "__main__":
    sys.exit(main())
