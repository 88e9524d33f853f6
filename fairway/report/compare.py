"""Revisions side by side: metrics and the params that differ, with differences from the first; then groups of seeds.

Revisions of the same code whose params differ only in `train.seed` form a group. Welch's t-test compares each group with the
first, in nats of validation loss per token, the unit of the challenge's margin. Both are converted with the first group's
bytes per token, because nats per token of two vocabularies do not compare.
"""

import csv
import io
import json
from statistics import fmean, stdev

from fairway import markdown
from fairway.report.record import PROVED
from fairway.report.revisions import SEED, Revision
from fairway.report.significance import LEVEL, MARGIN, welch

ABSENT = "—"
SCORE, SUM = "val_bpb", "val_bpb_ngram"  # of a run that is not proved, the score is the sum
SEEDS = "dvc exp run --queue -S train.seed=1,2,3"  # a list of values needs --queue
Group = list[Revision]  # no seed twice


def page(revisions: list[Revision]) -> str:
    """The comparison as Markdown whose columns also line up in a terminal."""
    header = [revision.name for revision in revisions]
    verdicts = [revision.verdict or ABSENT for revision in revisions]
    shown = [[name, *(verdicts if name == "legal" else cells(values))] for name, values in metrics(revisions)]
    blocks = [aligned(["metric", *header], shown)]
    if differing := params(revisions):
        blocks.append(aligned(["param", *header], [[name, *map(as_written, values)] for name, values in differing]))
    blocks += [*notes(revisions), *tests(groups(revisions))]
    return "\n\n".join(blocks) + "\n"


def table(revisions: list[Revision]) -> str:
    """The same metrics and params as CSV in full precision; after the values, their differences from the first revision."""
    first, *others = [revision.name for revision in revisions]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", first, *others, *(f"{name} - {first}" for name in others)])
    for name, values in metrics(revisions) + params(revisions):
        shown = ["" if value is None else as_written(value) for value in values]
        writer.writerow([name, *shown, *(difference(values[0], value) for value in values[1:])])
    return stream.getvalue()


def metrics(revisions: list[Revision]) -> list[tuple[str, list]]:
    """Name, and one value per revision (None where it has none), in the order of the summary, which begins with val_bpb."""
    names = ordered([revision.metrics for revision in revisions])
    rows = [(name, [revision.metrics.get(name) for revision in revisions]) for name in names]
    return [row for row in rows if row[0] != SUM or row[1] != dict(rows).get(SCORE)]


def params(revisions: list[Revision]) -> list[tuple[str, list]]:
    """The same of the params that are not equal in all revisions."""
    rows = [(name, [r.params.get(name) for r in revisions]) for name in ordered([r.params for r in revisions])]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def ordered(mappings: list[dict]) -> list[str]:
    """All keys, in the order of the mapping with the most."""
    mappings = sorted(mappings, key=len, reverse=True)
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def difference(first: object, value: object) -> float | int | str:
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in (first, value)):
        return ""
    return value - first if isinstance(value - first, int) else round(value - first, 9)


def cells(values: list) -> list[str]:
    """Values for reading, with what each is above or below the first in brackets."""
    shown = [str_of(value) for value in values]
    for column, value in enumerate(values[1:], 1):
        if change := difference(values[0], value):
            shown[column] += f" ({signed(change)})"
    return shown


def str_of(value: object) -> str:
    match value:
        case None:
            return ABSENT
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4f}"
    return str(value)


def signed(change: float | int) -> str:
    return ("-+"[change > 0] + str_of(abs(change))).replace("-", "\N{MINUS SIGN}")


def as_written(value: object) -> str:
    """A param as in params.yaml."""
    return ABSENT if value is None else value if isinstance(value, str) else json.dumps(value)


def aligned(header: list[str], rows: list[list[str]]) -> str:
    return markdown.table(header, rows, range(1, len(header)))


def notes(revisions: list[Revision]) -> list[str]:
    """What a reader of the numbers must know."""
    first, found = revisions[0], []
    if estimates := [revision.name for revision in revisions if revision.verdict != PROVED]:
        found.append(f"val_bpb of {', '.join(estimates)} is an estimate: not all of the validation text was coded and decoded.")
    for other in revisions[1:]:
        files = sorted({path for path, _ in set(first.code) ^ set(other.code)})
        if files:
            more = f" and {len(files) - 4} more" if len(files) > 4 else ""
            found.append(f"{other.name} ran with other code or data than {first.name}: {', '.join(files[:4])}{more}.")
        if other.val_bytes != first.val_bytes:
            found.append(
                f"{other.name} is scored on another validation text ({other.val_bytes:,} bytes, {first.name} on "
                f"{first.val_bytes:,}): their bits per byte do not compare."
            )
    return found


def groups(revisions: list[Revision]) -> list[Group]:
    """Revisions that differ only in their seed, in the order given. Those of the same seed are one run: the first stays."""
    found: dict[tuple, dict] = {}
    for revision in revisions:
        found.setdefault(revision.recipe, {}).setdefault(revision.seed, revision)
    return [list(group.values()) for group in found.values()]


def scores(group: Group) -> list[float]:
    return [revision.metrics["val_bpb"] for revision in group]


def tests(found: list[Group]) -> list[str]:
    """The groups' means and deviations, and a sentence on each but the first: is it better, and by the margin?"""
    first, *others = found
    if all(len(group) == 1 for group in found):
        return [f"No test: one seed each; run `{SEEDS}` and `dvc queue start` on both sides."] if others else []
    unit = first[0].nats_per_bit
    header = ["group", "n", "seeds", "mean bpb", "deviation", "mean, nats per token", "gain, nats per token"]
    rows = [row(group, first, unit) for group in found]
    return [
        "Groups of runs that differ only in " + SEED + f"; nats per token are bits per byte times {unit:.4f} (ln 2 · "
        f"{first[0].val_bytes:,} bytes / {first[0].val_targets:,} tokens of {first[0].name}).",
        aligned(header, rows),
        *(verdict(first, group, unit) for group in others),
    ]


def row(group: Group, first: Group, unit: float) -> list[str]:
    bpb = scores(group)
    gain = fmean(scores(first)) - fmean(bpb)
    deviation = f"{stdev(bpb):.5f}" if len(bpb) > 1 else ABSENT
    seeds = ", ".join(str(revision.seed) for revision in group)
    shown = ABSENT if group is first else signed(round(gain * unit, 4))
    return [group[0].name, str(len(bpb)), seeds, f"{fmean(bpb):.5f}", deviation, f"{fmean(bpb) * unit:.5f}", shown]


def verdict(first: Group, group: Group, unit: float) -> str:
    """One sentence of Welch's test, or of what it lacks."""
    names = f"{group[0].name} against {first[0].name}"
    single = [members[0].name for members in (first, group) if len(members) < 2]
    if single:
        who = " and ".join(single) + (" have one seed each" if len(single) == 2 else " has one seed")
        return f"{names}: no test, {who}; two are needed, three are usual: run `{SEEDS}` and `dvc queue start` there."
    before, after = ([score * unit for score in scores(members)] for members in (first, group))
    any_gain, enough = welch(before, after), welch(before, after, MARGIN)
    amount = f"{abs(any_gain.gain):.4f} nats per token {'better' if any_gain.gain > 0 else 'worse'}"
    holds = "shown" if enough.p < LEVEL else "not shown"
    return (
        f"{names}: {amount}, p = {any_gain.p:.2g} that it is no better (Welch, one-sided, t = {any_gain.t:.2f}, "
        f"{any_gain.freedom:.1f} degrees of freedom). A gain of more than {MARGIN} nats per token at p < {LEVEL}, which a "
        f"record needs: {holds} (p = {enough.p:.2g})."
    )
