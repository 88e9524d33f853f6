"""The style sheets of the HTML page and of the charts: all colors are variables, defined once for light and once for dark.

The colors of the charts are those of Okabe and Ito (2008), lighter in the dark. SHADES classes, from b0 to b7, color a token by
its bits: more bits are darker in the light and lighter in the dark. On a narrow screen the charts shrink and their letters
grow to make up for it.
"""

import re

BITS = (1, 2, 3, 4, 6, 8, 12)  # upper borders of all shades but the last
SHADES = len(BITS) + 1

LIGHT = {
    "paper": "#fffefb", "ink": "#1c1c1c", "quiet": "#63605a", "rule": "#8d8a84", "grid": "#e9e6df", "link": "#00578a",
    "good": "#00734f", "bad": "#b34500",
    "blue": "#0072b2", "orange": "#d55e00", "green": "#009e73", "sky": "#56b4e9", "grey": "#8a8a8a", "pink": "#cc79a7",
    "b0": "#fffefb", "b1": "#fff1dc", "b2": "#ffe3bd", "b3": "#ffd19b", "b4": "#ffbb78", "b5": "#fba05c", "b6": "#f38547",
    "b7": "#e66a36",
}  # fmt: skip
DARK = {
    "paper": "#161616", "ink": "#e8e6e1", "quiet": "#a5a29b", "rule": "#77746e", "grid": "#2d2c2a", "link": "#7cc0ee",
    "good": "#2fbf94", "bad": "#f08a3c",
    "blue": "#4ba3dc", "orange": "#f08a3c", "green": "#2fbf94", "sky": "#86cdf5", "grey": "#9a9a9a", "pink": "#dc96bf",
    "b0": "#161616", "b1": "#2b211a", "b2": "#40291b", "b3": "#56311b", "b4": "#6e3a1b", "b5": "#87431b", "b6": "#a14e1d",
    "b7": "#bd5b22",
}  # fmt: skip
COLORS = ("blue", "orange", "green", "sky", "grey", "pink")

CHARTS = """
svg text{font:11.5px system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;fill:var(--ink);
font-variant-numeric:tabular-nums}
svg .quiet{fill:var(--quiet)}
svg .strong{font-weight:650}
.line{fill:none;stroke:currentColor;stroke-width:1.6;stroke-linejoin:round}
.thin{stroke-width:.9;opacity:.6}
.dashed{stroke-dasharray:4 3;stroke-width:1}
.fill,.dot{fill:currentColor}
.soft{opacity:.4}
.dot{fill-opacity:.45;stroke:currentColor}
.grid{stroke:var(--grid)}
.rule{stroke:var(--rule)}
.level{stroke:var(--ink);stroke-width:2.5}
.ground{fill:var(--paper)}
@media(max-width:600px){svg text{font-size:14px}}
""" + "\n".join(f".{color}{{color:var(--{color})}}" for color in COLORS)

RULES = """
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:2rem 1rem 4rem;max-width:50rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif}
h1{font-size:1.05rem;font-weight:600;color:var(--quiet);margin:0}
h2{font-size:1.25rem;line-height:1.3;margin:3rem 0 .4rem}
h3{font-size:1rem;line-height:1.35;margin:1.6rem 0 .3rem}
p{margin:.4rem 0 .8rem;max-width:42rem}
a{color:var(--link)}
code{font:.9em ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.score{font-size:2.6rem;font-weight:650;line-height:1.1;margin:.2rem 0;letter-spacing:-.01em}
.score small{font-size:1.1rem;font-weight:400;color:var(--quiet);letter-spacing:0}
.yes{color:var(--good);font-weight:650}
.no{color:var(--bad);font-weight:650}
.scroll{overflow-x:auto;margin:.6rem 0 1rem}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums lining-nums}
th{text-align:left;font-weight:600;color:var(--quiet);border-bottom:1px solid var(--rule);vertical-align:bottom}
th,td{padding:.25rem 1rem .25rem 0;vertical-align:top}
td{border-bottom:1px solid var(--grid)}
th.n,td.n{text-align:right;white-space:nowrap}
tr.total td{font-weight:650;border-bottom:0}
td.wide{min-width:13rem}
figure{margin:1.4rem 0;max-width:40rem}
figcaption,.caption{font-size:.85rem;color:var(--quiet);margin:0}
svg{display:block;width:100%;height:auto;overflow:visible}
.passage{font:.875rem/1.75 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere;
margin:.2rem 0 1rem;max-width:46rem}
.passage i,.scale i{font-style:normal;border-radius:2px}
.scale{display:flex;flex-wrap:wrap;gap:2px;font-size:.8rem}
.scale i{padding:.1rem .6rem}
.scale i:first-child{border:1px solid var(--grid)}
summary{cursor:pointer;color:var(--link);font-size:.9rem}
@media(max-width:600px){
.score{font-size:2.1rem}
body{padding-top:1rem}
}
@media print{body{max-width:none}details{display:none}}
"""


def sheet() -> str:
    """The sheet of the page, charts included."""
    shades = [f".b{shade}{{background:var(--b{shade})}}" for shade in range(SHADES)]
    dark = f"@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
    return "\n".join([f":root{{{variables(LIGHT)}}}", dark, RULES.strip(), CHARTS.strip(), *shades])


def variables(colors: dict[str, str]) -> str:
    return ";".join(f"--{name}:{color}" for name, color in colors.items())


def charts() -> str:
    """The sheet of a chart in a file of its own, without variables, which not every viewer of SVG knows."""
    return f"{resolved(LIGHT)}\n@media(prefers-color-scheme:dark){{{resolved(DARK)}}}\n"


def resolved(colors: dict[str, str]) -> str:
    return re.sub(r"var\(--(\w+)\)", lambda variable: colors[variable[1]], CHARTS)


def shade(bits: float) -> int:
    """The class of a token of so many bits, 0 to SHADES − 1."""
    return sum(bits >= border for border in BITS)
