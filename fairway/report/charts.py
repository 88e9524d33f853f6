"""Charts as SVG: numbers in, markup out, the same bytes for the same numbers.

Text stays text and colors are classes, which style.py defines for light and dark pages. The same drawing is inlined in the
HTML page, whose style sheet colors it, and written as a file that carries its own sheet (`document`). Coordinates are those of
a page WIDTH wide; on a narrow screen the chart shrinks and the style enlarges the letters, for which the margins have room.
No chart has a title: the heading of a figure is part of the page.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

import pandas as pd

from fairway.markdown import printable
from fairway.report import style

WIDTH, MARGIN = 520, 12
LEFT, RIGHT = 56, 14  # margins of charts with a y axis
LETTER = 7.6  # width of a letter, at most on average, on a narrow screen
Scale = Callable[[float], float]


class Panel(NamedTuple):
    """A part of a drawing, WIDTH wide."""

    height: float
    body: list[str]


class Curve(NamedTuple):
    """A line through (x, y); missing values of y leave a gap. `kind` is a color and, if any, "dashed" or "thin"."""

    kind: str
    x: Sequence[float]
    y: Sequence[float]
    hint: str = ""


def svg(description: str, *panels: Panel, legend: dict[str, str] | None = None) -> str:
    """The panels below each other, under a legend of names by color; a screen reader reads `description`."""
    body, height = [], 0.0
    for panel in [key(legend), *panels] if legend else panels:
        body.append(f'<g transform="translate(0 {height:g})">{"".join(panel.body)}</g>')
        height += panel.height
    left, width, tall = -MARGIN, WIDTH + 2 * MARGIN, height + 2 * MARGIN
    box = f'width="{width}" height="{tall:g}" viewBox="{left} {left} {width} {tall:g}"'
    return f'<svg {box} role="img" aria-label="{escaped(description)}">{"".join(body)}</svg>'


def document(drawing: str) -> bytes:
    """The drawing as a file that can be read on a page of any color: it brings its own colors, light and dark, and a ground."""
    opening, content = drawing.split(">", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    ground = f'<rect x="{-MARGIN}" y="{-MARGIN}" width="100%" height="100%" class="ground"/>'
    return f"{opening}><style>{style.charts()}</style>{ground}{content}\n".encode()


def escaped(text: str) -> str:
    return escape(printable(text))


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escaped(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def box(x: float, y: float, width: float, height: float, kind: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="fill {kind}"/>'


def dot(x: float, y: float, radius: float, kind: str, hint: str = "") -> str:
    """A circle; `hint` is shown when the pointer rests on it."""
    title = f"<title>{escaped(hint)}</title>" if hint else ""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{kind}">{title}</circle>'


def key(names: dict[str, str]) -> Panel:
    """The legend: names by color, in as many rows as they need."""
    body, x, y = [], 0.0, 10.0
    for color, name in names.items():
        width = 30 + LETTER * len(name)
        if x and x + width > WIDTH:
            x, y = 0.0, y + 20
        body += [box(x, y - 9, 10, 10, color), text(x + 15, y, name)]
        x += width
    return Panel(y + 12, body)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high."""
    raw = (high - low or abs(high) or 1) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times each power of ten from low to high; where that is less than a factor of ten, `ticks`."""
    if high < 10 * low:
        return ticks(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [value for power in powers for digit in (1, 2, 5) if low <= (value := digit * 10.0**power) <= high]


def scale(low: float, high: float, start: float, end: float, logarithmic: bool = False) -> Scale:
    """Data to coordinates; a single value stands in the middle."""
    if logarithmic:
        inner = scale(math.log(low), math.log(high), start, end)
        return lambda value: inner(math.log(value))
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def short(number: float) -> str:
    """An axis label: 1,400,000 is 1.4 M."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return minus(f"{number / size:.6g}{letter}")
    return minus(f"{number:.6g}")


def minus(number: str) -> str:
    """A number with the sign that is as wide as a plus."""
    return number.replace("-", "\N{MINUS SIGN}")


def waterfall(labels: Sequence[str], levels: Sequence[float]) -> Panel:
    """One column per level: the level as a line, and as a bar what it saves or costs against the level before.

    A label may have several lines.
    """
    lines = max(label.count("\n") for label in labels) + 1
    height = 238 + 14 * lines
    span = max(levels) - min(levels) or 1e-3
    y = scale(max(levels) + 0.14 * span, min(levels) - 0.14 * span, 8, 222)
    width = (WIDTH - 8) / len(levels)
    body = []
    for index, (label, level) in enumerate(zip(labels, levels, strict=True)):
        left, right = 4 + index * width + 0.14 * width, 4 + (index + 1) * width - 0.14 * width
        middle = (left + right) / 2
        before = levels[index - 1] if index else level
        if index:
            top, bottom = sorted((y(before), y(level)))
            body.append(box(left, top, right - left, bottom - top, f"soft {'green' if level <= before else 'orange'}"))
            body.append(line(left - 0.28 * width, y(before), left, y(before), "rule"))
            body.append(text(middle, y(before) + (-6 if level < before else 14), signed(level - before), "quiet", "middle"))
        body.append(line(left, y(level), right, y(level), "level"))
        body.append(text(middle, y(level) + (15 if level < before else -7), f"{level:.4f}", "strong", "middle"))
        body += [text(middle, 242 + 14 * row, part, "", "middle") for row, part in enumerate(label.split("\n"))]
    return Panel(height, body)


def signed(change: float) -> str:
    return minus(f"{round(change, 4) + 0:+.4f}")  # + 0: no minus before 0.0000


def curves(
    lines: Sequence[Curve],
    axes: tuple[str, str],
    steps: bool = False,
    logarithmic: bool = False,
    zero: bool = False,
    dots: bool = False,
) -> Panel:
    """Lines over common axes, whose names are those of x and y.

    With `steps` x has one value more: y is level between its neighbors. `logarithmic` is the y axis. With `zero` the y
    axis includes 0, and a line there. With `dots` each point is marked.
    """
    height, bottom, top = 230, 190, 22
    values = [value for curve in lines for value in curve.y if not pd.isna(value)] + [0] * zero
    places = [value for curve in lines for value in curve.x]
    low, high = min(values), max(values)
    room = 0 if logarithmic else 0.04 * (high - low)
    x = scale(min(places), max(places), LEFT, WIDTH - RIGHT)
    y = scale(low - room, high + room, bottom, top, logarithmic)
    body = [text(0, 12, axes[1], "quiet"), text(WIDTH - RIGHT, height - 4, axes[0], "quiet", "end")]
    for value in (decades if logarithmic else ticks)(low, high):
        body += [line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"), text(LEFT - 6, y(value) + 4, short(value), "", "end")]
    for value in ticks(min(places), max(places)):
        body += [line(x(value), bottom, x(value), bottom + 4, "rule"), text(x(value), bottom + 18, short(value), "", "middle")]
    if zero:
        body.append(line(LEFT, y(0), WIDTH - RIGHT, y(0), "rule"))
    for curve in lines:
        body.append(f'<path d="{path(curve.x, curve.y, x, y, steps)}" class="line {curve.kind}"/>')
        if dots:
            points = [(a, b) for a, b in zip(curve.x, curve.y, strict=True) if not pd.isna(b)]
            body += [dot(x(a), y(b), 3, f"fill {curve.kind}", curve.hint) for a, b in points]
    return Panel(height, body)


def path(xs: Sequence[float], ys: Sequence[float], x: Scale, y: Scale, steps: bool) -> str:
    """The `d` of an SVG path; the pen is lifted over missing values."""
    commands, down = [], False
    for index, value in enumerate(ys):
        if pd.isna(value):
            down = False
            continue
        commands.append(f"{'L' if down else 'M'}{x(xs[index]):.1f} {y(value):.1f}")
        if steps:
            commands.append(f"H{x(xs[index + 1]):.1f}")
        down = True
    return "".join(commands)


def bars(labels: Sequence[str], parts: dict[str, Sequence[float]], notes: Sequence[str]) -> Panel:
    """Horizontal bars, one row per label, stacked from parts (none negative) by color; `notes` stand at their ends."""
    row, (left, right) = 24, (12 + LETTER * max(map(len, words)) for words in (labels, notes))
    whole = max(map(sum, zip(*parts.values(), strict=True))) or 1
    x = scale(0, whole, 0, WIDTH - left - right)
    body = []
    for index, label in enumerate(labels):
        y, start = index * row + 4, float(left)
        body.append(text(left - 8, y + 12, label, "", "end"))
        for color, values in parts.items():
            if values[index]:
                body.append(box(start, y, x(values[index]), 15, color))
                start += x(values[index])
        body.append(text(start + 6, y + 12, notes[index], "quiet"))
    return Panel(row * len(labels) + 4, body)


def strips(rows: dict[str, list[tuple[float, str]]], axis: str) -> Panel:
    """One row per label, and on it a dot for each (value, hint)."""
    height, left = 30 * len(rows) + 40, 12 + LETTER * max(map(len, rows))
    values = [value for dots in rows.values() for value, _ in dots]
    x = scale(0, max(values), left, WIDTH - RIGHT)
    body = [text(WIDTH - RIGHT, height - 2, axis, "quiet", "end")]
    for value in ticks(0, max(values)):
        body += [line(x(value), 6, x(value), height - 34, "grid"), text(x(value), height - 20, short(value), "", "middle")]
    for index, (label, dots) in enumerate(rows.items()):
        y = 30 * index + 18
        body.append(text(left - 12, y + 4, label, "", "end"))
        body += [dot(x(value), y, 4.5, "dot blue", hint) for value, hint in dots]
    return Panel(height, body)
