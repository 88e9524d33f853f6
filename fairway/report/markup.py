"""Pieces of the HTML page: tables, figures with their headings and links, folds.

Whatever comes from data is escaped here, except where a caller says that a column is markup already.
"""

import re
from collections.abc import Container, Sequence
from html import escape


def coded(markdown: str) -> str:
    """`code` as HTML; all else is escaped."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(markdown))


def link(path: str) -> str:
    """To a file beside the page."""
    return f'<a href="{path}">{path.split("/")[-1]}</a>'


def fold(summary: str, content: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def figure(title: str, drawing: str, source: str | None, legend: dict[str, str] | None = None, note: str = "") -> str:
    """A chart under what it shows, with its colours named, and the table that it is drawn from."""
    named = "".join(f'<span class="{colour}">{escape(name)}</span>' for colour, name in (legend or {}).items())
    from_where = f"{note} Table: {link(source)}".strip() if source else note
    return (
        f"<figure><h3>{escape(title)}</h3>"
        + (f'<p class="legend">{named}</p>' if named else "")
        + drawing
        + (f"<figcaption>{from_where}</figcaption>" if from_where else "")
        + "</figure>"
    )


def table(
    header: Sequence[str],
    rows: list[list[str]],
    numbers: Container[int] = (),
    markup: Container[int] = (),
    wide: Container[int] = (),
    total: bool = False,
) -> str:
    """A table that scrolls in its own box; its last row may be a total.

    Columns in `numbers` are set flush right, those in `wide` keep room for words; all but those in `markup` are escaped.
    """
    kinds = ["n" if column in numbers else "wide" if column in wide else "" for column in range(len(header))]
    classes = [f' class="{kind}"' if kind else "" for kind in kinds]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(classes, header, strict=True))
    body, mark = [], ' class="total"' if total else ""
    for number, row in enumerate(rows, 1):
        cells = "".join(
            f"<td{classes[column]}>{cell if column in markup else escape(cell)}</td>" for column, cell in enumerate(row)
        )
        body.append(f"<tr{mark if number == len(rows) else ''}>{cells}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
