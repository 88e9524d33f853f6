"""Tables in GitHub's Markdown, padded so that their columns also line up in a terminal."""

from collections.abc import Container, Iterable, Sequence

from tabulate import tabulate


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Container[int] = ()) -> str:
    """A Markdown table; the columns in `numbers` are flush right. No cell can break it: "|" and line ends are escaped."""
    columns = ["right" if column in numbers else "left" for column in range(len(header))]
    cells = [[one_line(cell).replace("|", "\\|") for cell in row] for row in [header, *rows]]
    return tabulate(cells[1:], cells[0], "pipe", disable_numparse=True, colalign=columns if len(cells) > 1 else None)


def one_line(text: str) -> str:
    """The text without line ends, and without characters that could steer a terminal."""
    return printable(" ".join(text.splitlines()))


def printable(text: str) -> str:
    """Text in which an escape stands for every character that cannot be printed."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
