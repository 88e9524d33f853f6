"""The cheats' gallery as a table: which cheats and bugs were tried, and what refuses each; and honest runs, which nothing may.

Each goes through the real stages of a tiny pipeline (tests/gallery/pipeline.py), whose chatter goes to standard error. Exits
with 1 if one got through, or was refused for another reason than its own, or if an honest run was refused.
Run: python -m bench.gallery > gallery.md; `python -m bench.gallery cheats` and `… honest` are its halves.
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from fairway.markdown import one_line
from tests.gallery import pipeline, tools
from tests.gallery.sections import SECTIONS

SEEDS = range(1, 11)


def row(cells: list[str]) -> str:
    """Of a Markdown table, not padded: reasons are long."""
    return f"| {' | '.join(one_line(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def heading(title: str, columns: list[str]) -> str:
    return "\n".join((f"\n## {title}\n", row(columns), "|---" * len(columns) + "|"))


def cheats(honest: Path, out: TextIO) -> tuple[int, int]:
    """Print a table per section; how many were tried, and how many refused for their own reasons."""
    counts = {}
    for title, found in SECTIONS.items():
        print(heading(f"Cheats of {title}", ["cheat", "known from", "refused because"]), file=out)
        counts[title] = [0, len(found)]
        for cheat in found:
            caught, cells = judge(cheat, honest)
            counts[title][0] += caught
            print(row(cells), file=out, flush=True)
    print(file=out)
    for title, (refused, tried) in counts.items():
        name = title.replace(",", "").replace(" ", "_")
        print(f"figure gallery.tried.{name} = {tried}\nfigure gallery.refused.{name} = {refused}", file=out)
    return sum(tried for _, tried in counts.values()), sum(refused for refused, _ in counts.values())


def judge(cheat: pipeline.Cheat, honest: Path) -> tuple[bool, list[str]]:
    """Whether a cheat is refused for its own reasons, and the cells of its row."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        try:
            _, found = pipeline.judged(cheat, honest, place)
        except Exception as error:
            found = {"it could not be tried": f"{type(error).__name__}: {error}"}
    caught = pipeline.for_its_own_reasons(cheat, found)
    reasons = "; ".join(f"{claim}: {result}" for claim, result in found.items())
    reasons = reasons.replace(str(place), "…").replace(str(pipeline.ROOT), "…")
    return caught, [cheat.name, cheat.source, reasons if caught else f"**{reasons or 'it got through'}**"]


def honest_runs(honest: Path, out: TextIO) -> int:
    """Print a table of runs of other documents and weights, with what refuses them; how many were refused."""
    print(
        heading("Honest runs", ["seed", "verdict", "bpb", "tokens of val", "val against the witness", "refused because"]),
        file=out,
    )
    alarms = 0
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            Path("params.yaml").write_bytes((honest / "params.yaml").read_bytes())
            certificate = pipeline.honest_run(seed)
            found = pipeline.failing(certificate) | tools.verifier(honest)
        alarms += bool(found) or certificate["verdict"] != tools.PROVED
        easy = next(claim["result"] for claim in certificate["claims"] if claim["claim"] == pipeline.TOO_EASY)
        reasons = "; ".join(f"{claim}: {result}" for claim, result in found.items()) or "—"
        numbers = [f"{certificate['bpb']}", f"{certificate['val_tokens']:,}"]
        print(row([f"{seed}", certificate["verdict"], *numbers, easy, reasons]), file=out, flush=True)
    print(file=out)
    return alarms


def main() -> int:
    out, which = sys.stdout, sys.argv[1:] or ["cheats", "honest"]
    wrong = 0
    with (
        contextlib.redirect_stdout(sys.stderr),
        tempfile.TemporaryDirectory() as folder,
        pipeline.honest_pipeline(Path(folder)) as certificate,
    ):
        if not certificate["legal"]:
            sys.exit(f"error: the honest pipeline is refused: {'; '.join(certificate['reasons'])}")
        if "cheats" in which:
            tried, refused = cheats(Path(folder), out)
            print(f"figure gallery.tried = {tried}\nfigure gallery.refused = {refused}", file=out, flush=True)
            wrong += tried - refused
        if "honest" in which:
            alarms = honest_runs(Path(folder), out)
            print(f"figure gallery.honest_runs = {len(SEEDS)}\nfigure gallery.false_alarms = {alarms}", file=out, flush=True)
            wrong += alarms
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
