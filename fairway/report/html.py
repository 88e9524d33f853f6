"""reports/index.html: the report in one file that opens from disk, light and dark, without network or script.

It shows what content.py says, the passages of the text that cost least and most, the clocks, and the params that were changed.
The same input gives the same bytes. Whatever comes from data is escaped.
"""

import re
from html import escape

import pandas as pd

from fairway.markdown import printable
from fairway.report import figures, style
from fairway.report.content import Block, Bullets, Section, Table, headline
from fairway.report.figures import Figure
from fairway.report.labels import doubt
from fairway.report.passages import Passage

HEAD = (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,'
    'initial-scale=1"><link rel="icon" href="data:,">'
)
INLINE = re.compile(r"`([^`]*)`|\*\*([^*]+)\*\*")
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


def index(
    summary: dict,
    frames: dict[str, pd.DataFrame],
    sections: list[Section],
    extremes: tuple[list[Passage], list[Passage]],
    changes: pd.DataFrame | None,
) -> str:
    """The page.

    `frames` has `documents` (tables.py) and `seconds` (breakdown.py); `sections` are those of content.sections, `extremes`
    of passages.extremes, `changes` of breakdown.changed: None where there is nothing to compare with.
    """
    score, unit = f"{summary['val_bpb']:.4f}", f"bits per byte{doubt(summary)}"
    blocks = [
        f"<h1>Fairway report</h1>"
        f'<p class="score">{score} <small>{unit}</small></p><p>{linked(headline(summary, frames["documents"]))}</p>',
        *(rendered(section.heading, *section.blocks) for section in sections),
        texts(*extremes),
        rendered("How long it took", *clocks(frames["seconds"])),
        rendered("Params that differ from the commit’s", params(changes)),
    ]
    head = f"{HEAD}<title>{score} {unit}</title><style>{style.sheet()}</style></head>"
    return "\n".join([head, "<body>", *blocks, "</body></html>\n"])


def rendered(heading: str, *blocks: Block) -> str:
    return f"<h2>{escape(heading)}</h2>" + "".join(map(block, blocks))


def block(content: Block) -> str:
    match content:
        case str():
            return f"<p>{linked(content)}</p>"
        case Bullets(items):
            return "<ul>" + "".join(f"<li>{inline(item)}</li>" for item in items) + "</ul>"
        case Figure():
            source = f"Table: [{content.source.split('/')[-1]}]({content.source})" if content.source else ""
            caption = f"<figcaption>{linked(f'{content.note} {source}'.strip())}</figcaption>"
            return f"<figure><h3>{escape(content.title)}</h3>{content.drawing}{caption}</figure>"
        case Table():
            return table(content)


def inline(text: str) -> str:
    """`code` and **bold** as HTML; all else is escaped."""
    return INLINE.sub(lambda match: f"<code>{match[1]}</code>" if match[2] is None else f"<b>{match[2]}</b>", escape(text))


def linked(text: str) -> str:
    """The same, and links; for text that comes from no data."""
    return LINK.sub(r'<a href="\2">\1</a>', inline(text))


def table(content: Table) -> str:
    """A table that scrolls in its own box, folded where it is to be."""
    columns = zip(*content.rows, strict=True) if content.rows else [()] * len(content.header)
    long = [any(isinstance(value, str) and len(value) > 30 for value in column) for column in columns]
    kinds = [' class="n"' if i in content.numbers else ' class="wide"' if long[i] else "" for i in range(len(long))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, content.header, strict=True))
    rows = ["".join(f"<td{kind}>{cell(value)}</td>" for kind, value in zip(kinds, row, strict=True)) for row in content.rows]
    lines = [f"<tr>{row}</tr>" for row in rows]
    if content.total:
        lines[-1] = lines[-1].replace("<tr>", '<tr class="total">', 1)
    body = f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    if not content.folded:
        return body
    return f"<details{' open' * content.unfolded}><summary>{escape(content.folded)}</summary>{body}</details>"


def cell(value: str | bool) -> str:
    if isinstance(value, str):
        return inline(value)
    return '<span class="yes">✓</span>' if value else '<span class="no">✗</span>'


def texts(easiest: list[Passage], hardest: list[Passage]) -> str:
    """The passages, each token colored by its bits."""
    borders = ["0", *map(str, style.BITS)]
    legend = "".join(
        f'<i class="b{shade}">{low}{f"–{borders[shade + 1]}" if shade + 1 < style.SHADES else " and more"}</i>'
        for shade, low in enumerate(borders)
    )
    blocks = [
        "<h2>What is easy and what is hard</h2>",
        "<p>Passages of about 400 bytes. The color of a token shows its bits after mixing. Hover over a token to see its bits "
        "under the network alone.</p>",
        f'<p class="scale">{legend}<span>bits per token</span></p>',
    ]
    for name, passages in (("least", easiest), ("most", hardest)):
        if passages:
            blocks.append(f"<h3>The {len(passages)} that cost {name}</h3>")
        blocks += map(passage, passages)
    return "".join(blocks)


def passage(found: Passage) -> str:
    tokens = "".join(
        f'<i class="b{style.shade(token.after)}" title="{escape(visible(token.text, ""))}: '
        f'{token.before:.2f} → {token.after:.2f} bits">{escape(visible(token.text))}</i>'
        for token in found.tokens
    )
    where = f"document {found.document:,}, {found.size:,} bytes from byte {found.start:,}"
    cost = f"<b>{found.bits_per_byte:.3f}</b> bits per byte"
    return f'<p class="caption">{cost}: {where}</p><p class="passage">{tokens}</p>'


def visible(text: str, line_break: str = "\n") -> str:
    """Text that shows everything in it: ↵ and a line break for the end of a line, escapes for what cannot be printed."""
    return f"↵{line_break}".join(map(printable, text.split("\n")))


def clocks(seconds: pd.DataFrame) -> list[Block]:
    rows = [
        [row.stage, f"{row.seconds:,.1f}", "" if pd.isna(row.rate) else f"{row.rate:,.0f}", row.parts]
        for row in seconds.itertuples()
    ]
    return [
        "Measured on the machine that ran it; another run differs. A stage that was not run again shows the clock of its last "
        "run. Parts may overlap.",
        figures.seconds(seconds),
        Table(["stage", "seconds", "tokens per second", "of which"], rows, numbers=(1, 2)),
    ]


def params(changes: pd.DataFrame | None) -> Block:
    if changes is None:
        return "There is no commit to compare params.yaml with."
    if changes.empty:
        return "None: params.yaml is that of the commit."
    rows = [[f"`{value}`" for value in row] for row in changes.astype(str).to_numpy().tolist()]
    return Table(["param", "in the commit", "in this run"], rows)
