"""reports/summary.md: the report as GitHub shows it.

Figures and tables are linked relative to the page, so that it can be read in the repository and in a copy of `reports/` alike.
"""

import pandas as pd

from fairway import markdown
from fairway.report.content import Block, Bullets, Section, Table, headline
from fairway.report.figures import Figure
from fairway.report.labels import doubt


def page(summary: dict, documents: pd.DataFrame, sections: list[Section]) -> str:
    """The page. `documents` is made by tables.by_document, `sections` by content.sections."""
    score = f"**{summary['val_bpb']:.4f} bits per byte**{doubt(summary)} {headline(summary, documents)}"
    blocks = ["# Report", score]
    for section in sections:
        blocks += [f"## {section.heading}", *map(rendered, section.blocks)]
    return "\n\n".join(blocks) + "\n"


def rendered(block: Block) -> str:
    match block:
        case str():
            return block
        case Bullets(items):
            return "\n".join(f"- {markdown.one_line(item)}" for item in items)
        case Figure():
            source = f"{block.note} Table: [{block.source.split('/')[-1]}]({block.source}).".strip()
            return f"**{block.title}**\n\n![{block.title}](report/{block.name}.svg)\n\n{source}"
        case Table():
            return table(block)


def table(block: Table) -> str:
    """A table; GitHub shows a folded one as a line that unfolds it."""
    rows = [[cell if isinstance(cell, str) else "yes" if cell else "**no**" for cell in row] for row in block.rows]
    if block.total:
        rows[-1] = [f"**{cell}**" if cell else "" for cell in rows[-1]]
    content = markdown.table(block.header, rows, block.numbers)
    if not block.folded:
        return content
    return f"<details{' open' * block.unfolded}><summary>{block.folded}</summary>\n\n{content}\n\n</details>"
