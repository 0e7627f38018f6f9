"""Line charts as text for a terminal and as SVG for a page, from the same data and with the same ticks.

Small on purpose: terminal plotting libraries draw no SVG, and two charts of one table must not differ.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape

_FAR_BELOW = -1e6
"""Where a logarithmic axis has what is not above 0, as a share of its length."""

Points = tuple[tuple[float, float], ...]

SYMBOLS = "*o+#x%@="
"""A line's symbol by its place among the lines; `COLOURS` and `DASHES` go the same way."""

COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#b34700", "#e69f00"),
    ("#00714f", "#2dc79c"),
    ("#8b3a75", "#e29ac8"),
    ("#5c5300", "#f0e442"),
    ("#444444", "#cccccc"),
    ("#a61c1c", "#ff8a80"),
    ("#3b3bb0", "#a6a6ff"),
)
"""On light, on dark: readable on either, and told apart by people who see few colours (with the dashes)."""

DASHES = ("", "7 4", "2 3", "10 3 2 3", "1 4", "12 5", "5 2 1 2", "3 6")


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `points` are (x, y) with x rising; what lies outside the chart is cut off."""

    name: str
    points: Points


@dataclass(frozen=True, slots=True)
class Axes:
    """What a chart shows.

    Attributes:
        x, y: ranges, low to high; a logarithmic axis must begin above 0.
        x_title, y_title: what is measured, and in which unit.
        scale: of both axes.
        marks: points to be pointed out, such as where two lines cross; `mark_name` says what they are.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    x_title: str
    y_title: str
    scale: Literal["linear", "log"] = "linear"
    marks: Points = ()
    mark_name: str = ""

    def across(self, x: float) -> float:
        """Where x is, from 0 at the left to 1 at the right."""
        return self._share(x, self.x)

    def up(self, y: float) -> float:
        """Where y is, from 0 at the bottom to 1 at the top."""
        return self._share(y, self.y)

    def _share(self, value: float, within: tuple[float, float]) -> float:
        low, high = within
        if self.scale == "linear":
            return (value - low) / (high - low)
        return math.log(value / low) / math.log(high / low) if value > 0 else _FAR_BELOW


def line_chart(series: Sequence[Series], axes: Axes, width: int = 80, height: int = 20) -> str:
    """The chart in plain ASCII, at most `width` columns wide and `height` lines high without its legend."""
    ticks = {round(axes.up(y) * (height - 4)): label for y, label in _ticks(axes.y, axes.scale)}
    margin = max(map(len, ticks.values()))
    columns, rows = width - margin - 3, height - 3
    grid = [[" "] * columns for _ in range(rows)]
    for index, line in enumerate(series):
        symbol = SYMBOLS[index % len(SYMBOLS)]
        for column, row in _cells(line, axes, columns, rows):
            grid[row][column] = symbol
    for x, y in axes.marks:
        column, row = round(axes.across(x) * (columns - 1)), round(axes.up(y) * (rows - 1))
        if 0 <= column < columns and 0 <= row < rows:
            grid[row][column] = "X"
    lines = [axes.y_title]
    for row in reversed(range(rows)):
        label = ticks.get(row, "")
        lines.append(f"{label:>{margin}} {'+' if label else '|'}{''.join(grid[row])}")
    bottom, labels = ["-"] * columns, [" "] * (columns + 2)
    for x, label in _ticks(axes.x, axes.scale):
        column = round(axes.across(x) * (columns - 1))
        bottom[column] = "+"
        start = min(max(0, column - len(label) // 2), columns - len(label))
        if not "".join(labels[max(0, start - 1) : start + len(label) + 1]).strip():
            labels[start : start + len(label)] = label
    lines += [f"{'':{margin}} +{''.join(bottom)}", f"{'':{margin}}  {''.join(labels)}"]
    lines.append(f"{axes.x_title:>{width - 1}}")
    names = [f"{SYMBOLS[index % len(SYMBOLS)]} {line.name}" for index, line in enumerate(series)]
    lines += _flow([*names, *([f"X {axes.mark_name}"] if axes.marks else [])], margin + 2, width)
    return "\n".join(line.rstrip() for line in lines)


def line_chart_svg(series: Sequence[Series], axes: Axes, title: str, description: str) -> str:
    """The chart as a page of its own: no script, no font and no file from elsewhere, light or dark as the reader is.

    `description` says in words what the lines say, for those who don't see them.
    """
    wide, high, left, top = 640, 320, 72, 56
    legend = top + high + 62

    def at(x: float, y: float) -> tuple[float, float]:
        return round(left + axes.across(x) * wide, 1), round(top + (1 - axes.up(y)) * high, 1)

    parts: list[str] = []
    for y, label in _ticks(axes.y, axes.scale):
        _, middle = at(axes.x[0], y)
        parts.append(f'<path class="grid" d="M{left} {middle}h{wide}"/>')
        parts.append(f'<text x="{left - 8}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>')
    for x, label in _ticks(axes.x, axes.scale):
        middle, _ = at(x, axes.y[0])
        parts.append(f'<path class="grid" d="M{middle} {top}v{high}"/>')
        parts.append(f'<text x="{middle}" y="{top + high + 18}" text-anchor="middle">{escape(label)}</text>')
    entries = len(series) + bool(axes.marks)
    for index, line in enumerate(series):
        style = f'class="line c{index % len(COLOURS)}" stroke-dasharray="{DASHES[index % len(DASHES)] or "none"}"'
        path = " ".join("{},{}".format(*at(x, y)) for x, y in line.points)
        parts.append(f'<g clip-path="url(#plot)"><polyline {style} points="{path}"/></g>')
        x, y = left + (index % 2) * 330, legend + index // 2 * 20
        parts.append(f'<path {style} d="M{x} {y - 4}h36"/><text x="{x + 44}" y="{y}">{escape(line.name)}</text>')
    for x, y in axes.marks:
        across, up = at(x, y)
        if axes.x[0] <= x <= axes.x[1] and axes.y[0] <= y <= axes.y[1]:
            parts.append(f'<circle class="mark" cx="{across}" cy="{up}" r="5"/>')
    if axes.marks:
        x, y = left + (len(series) % 2) * 330, legend + len(series) // 2 * 20
        parts.append(f'<circle class="mark" cx="{x + 18}" cy="{y - 4}" r="5"/>')
        parts.append(f'<text x="{x + 44}" y="{y}">{escape(axes.mark_name)}</text>')
    total_high = legend + (entries + 1) // 2 * 20
    light = "".join(f".c{index}{{stroke:{pair[0]}}}" for index, pair in enumerate(COLOURS))
    dark = "".join(f".c{index}{{stroke:{pair[1]}}}" for index, pair in enumerate(COLOURS))
    return _SVG.format(
        width=left + wide + 28,
        height=total_high,
        title=escape(title),
        description=escape(description),
        light=light,
        dark=dark,
        left=left,
        top=top,
        wide=wide,
        high=high,
        middle=left + wide / 2,
        below=top + high + 38,
        x_title=escape(axes.x_title),
        y_title=escape(axes.y_title),
        body="\n".join(parts),
    )


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title desc">
<title id="title">{title}</title>
<desc id="desc">{description}</desc>
<style>
svg{{color:#1a1a1a;font:13px system-ui,sans-serif}}.page{{fill:#fff}}
text{{fill:currentColor}}.grid{{stroke:currentColor;stroke-opacity:.15}}.line{{fill:none;stroke-width:2.5}}
.mark{{fill:none;stroke:currentColor;stroke-width:2}}{light}
@media(prefers-color-scheme:dark){{svg{{color:#eee}}.page{{fill:#161616}}{dark}}}
</style>
<rect class="page" width="{width}" height="{height}"/>
<clipPath id="plot"><rect x="{left}" y="{top}" width="{wide}" height="{high}"/></clipPath>
<text x="{left}" y="22" font-weight="600">{title}</text>
<text x="{left}" y="44">{y_title}</text>
<text x="{middle}" y="{below}" text-anchor="middle">{x_title}</text>
<rect class="grid" x="{left}" y="{top}" width="{wide}" height="{high}" fill="none"/>
{body}
</svg>
"""


def _cells(line: Series, axes: Axes, columns: int, rows: int) -> Iterator[tuple[int, int]]:
    """The cells that a line goes through: one a column, and those between where it is steep."""
    before: int | None = None
    for column in range(columns):
        share = _height_at(line, axes, column / (columns - 1))
        if share is None:
            before = None
            continue
        row = round(min(max(share, -1.0), 2.0) * (rows - 1))
        first, last = (row, row) if before is None else (min(row, before + 1), max(row, before - 1))
        for each in range(max(0, first), min(rows - 1, last) + 1):
            yield column, each
        before = row


def _height_at(line: Series, axes: Axes, across: float) -> float | None:
    """A line's height as a share of the chart's, straight between its points; None beyond its ends."""
    places = [(axes.across(x), axes.up(y)) for x, y in line.points]
    for (x0, y0), (x1, y1) in itertools.pairwise(places):
        if x0 <= across <= x1:
            return y0 + (y1 - y0) * (across - x0) / (x1 - x0) if x1 > x0 else y1
    return None


def _ticks(within: tuple[float, float], scale: Literal["linear", "log"]) -> list[tuple[float, str]]:
    """Round numbers in a range with their labels: powers of ten, or four to eight steps of 1, 2 or 5."""
    low, high = within
    if scale == "log":
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        values = [10.0**power for power in range(first, last + 1)]
    else:
        rough = (high - low) / 5
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * times for times in (1, 2, 5, 10) if unit * times >= rough * 0.8)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        values = [count * step for count in range(first, last + 1)]
    return [(value, short(value)) for value in values]


def short(value: float) -> str:
    """A number in few characters: 1.5k, 20M, 0.25."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _flow(entries: Sequence[str], indent: int, width: int) -> list[str]:
    """Entries beside one another, three blanks apart, in as few lines as they need."""
    lines = [""]
    for entry in entries:
        longer = f"{lines[-1]}   {entry}" if lines[-1] else entry
        if lines[-1] and indent + len(longer) > width:
            lines.append(entry)
        else:
            lines[-1] = longer
    return [" " * indent + line for line in lines]
