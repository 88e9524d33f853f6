"""Charts as inline SVG: numbers in, markup out, the same bytes for the same numbers.

Text is text and colours are classes (style.py says what they are, light and dark), so a chart can be searched, read aloud
and shown in both. The coordinates are those of a page WIDTH wide; a narrow screen shrinks the chart and the style makes up
for it with larger letters, for which the margins have room. No chart has a title: the figure's heading is HTML (html.py).
"""

import math
from collections.abc import Callable, Sequence
from html import escape

import pandas as pd

WIDTH = 520
LEFT, RIGHT = 56, 14  # margins of charts with a y axis
LETTER = 7.6  # width of one, at most on average, on a narrow screen
Scale = Callable[[float], float]


def svg(height: float, description: str, body: Sequence[str]) -> str:
    """`description` is what a screen reader says."""
    label = escape(description)
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}">{"".join(body)}</svg>'


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def box(x: float, y: float, width: float, height: float, kind: str, hint: str = "") -> str:
    """A filled rectangle; `hint` is shown when the pointer rests on it."""
    title = f"<title>{escape(hint)}</title>" if hint else ""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" class="{kind}">{title}</rect>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from low to high."""
    raw = (high - low or abs(high) or 1) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def scale(low: float, high: float, start: float, end: float, logarithmic: bool = False) -> Scale:
    """Data to coordinates; one value alone is put in the middle."""
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
    return number.replace("-", "\N{MINUS SIGN}")


def waterfall(ladder: pd.DataFrame, description: str) -> str:
    """A rung a column: its level as a line, and as a bar what it saves or costs; `ladder` has stage, bpb and gain."""
    levels, height = ladder["bpb"].tolist(), 250
    span = max(levels) - min(levels) or 1e-3
    y = scale(max(levels) + 0.14 * span, min(levels) - 0.14 * span, 8, height - 26)
    width = (WIDTH - 8) / len(levels)
    body = []
    for index, row in enumerate(ladder.itertuples()):
        left, right = 4 + index * width + 0.14 * width, 4 + (index + 1) * width - 0.14 * width
        middle = (left + right) / 2
        saves = index > 0 and row.gain > 0
        if index:
            before = levels[index - 1]
            top, bottom = sorted((y(before), y(row.bpb)))
            body.append(box(left, top, right - left, bottom - top, f"fill soft {'green' if row.gain >= 0 else 'orange'}"))
            body.append(line(left - 0.28 * width, y(before), left, y(before), "rule"))
            body.append(text(middle, y(before) + (-6 if saves else 14), minus(f"{-row.gain:+.4f}"), "quiet", "middle"))
        body.append(line(left, y(row.bpb), right, y(row.bpb), "level"))
        body.append(text(middle, y(row.bpb) + (15 if saves else -7), f"{row.bpb:.4f}", "strong", "middle"))
        body.append(text(middle, height - 6, row.stage, "", "middle"))
    return svg(height, description, body)


def curves(
    curves: dict[str, tuple[Sequence[float], Sequence[float]]],
    description: str,
    axes: tuple[str, str],
    steps: bool = False,
    logarithmic: bool = False,
    zero: bool = False,
) -> str:
    """Lines by colour, each of (x, y); missing values of y leave a gap.

    `axes` are the names of x and y. Of `steps` x has one value more: y is level between its neighbours. `logarithmic`
    is the y axis. With `zero` that axis holds 0, and a line there.
    """
    height, bottom, top = 230, 190, 22
    values = [value for _, ys in curves.values() for value in ys if not pd.isna(value)] + ([0] if zero else [])
    marks = [value for xs, _ in curves.values() for value in xs]
    low, high = min(values), max(values)
    room = 0 if logarithmic else 0.04 * (high - low)
    x = scale(min(marks), max(marks), LEFT, WIDTH - RIGHT)
    y = scale(low - room, high + room, bottom, top, logarithmic)
    body = [text(0, 12, axes[1], "quiet"), text(WIDTH - RIGHT, height - 4, axes[0], "quiet", "end")]
    for value in ticks(low, high):
        body += [line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"), text(LEFT - 6, y(value) + 4, short(value), "", "end")]
    for value in ticks(min(marks), max(marks)):
        body += [line(x(value), bottom, x(value), bottom + 4, "rule"), text(x(value), bottom + 18, short(value), "", "middle")]
    if zero:
        body.append(line(LEFT, y(0), WIDTH - RIGHT, y(0), "rule"))
    body += [f'<path d="{path(xs, ys, x, y, steps)}" class="line {colour}"/>' for colour, (xs, ys) in curves.items()]
    return svg(height, description, body)


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


def bars(labels: Sequence[str], parts: dict[str, Sequence[float]], notes: Sequence[str], description: str) -> str:
    """Horizontal bars, a label a row, each put together from parts (none negative) by colour; `notes` stand at their ends."""
    row, (left, right) = 24, (12 + LETTER * max(map(len, words)) for words in (labels, notes))
    whole = max(map(sum, zip(*parts.values(), strict=True))) or 1
    x = scale(0, whole, 0, WIDTH - left - right)
    body = []
    for index, label in enumerate(labels):
        y, start = index * row + 4, float(left)
        body.append(text(left - 8, y + 12, label, "", "end"))
        for colour, values in parts.items():
            if values[index]:
                body.append(box(start, y, x(values[index]), 15, f"fill {colour}"))
                start += x(values[index])
        body.append(text(start + 6, y + 12, notes[index], "quiet"))
    return svg(row * len(labels) + 4, description, body)


def strips(rows: dict[str, list[tuple[float, str]]], axis: str, description: str) -> str:
    """A row a label, and on it a dot for each (value, hint)."""
    height, left = 30 * len(rows) + 40, 12 + LETTER * max(map(len, rows))
    values = [value for dots in rows.values() for value, _ in dots]
    x = scale(0, max(values), left, WIDTH - RIGHT)
    body = [text(WIDTH - RIGHT, height - 2, axis, "quiet", "end")]
    for value in ticks(0, max(values)):
        body += [line(x(value), 6, x(value), height - 34, "grid"), text(x(value), height - 20, short(value), "", "middle")]
    for index, (label, dots) in enumerate(rows.items()):
        y = 30 * index + 18
        body.append(text(left - 12, y + 4, label, "", "end"))
        for value, hint in dots:
            circle = f'<circle cx="{x(value):.1f}" cy="{y}" r="4.5" class="dot blue"><title>{escape(hint)}</title></circle>'
            body.append(circle)
    return svg(height, description, body)
