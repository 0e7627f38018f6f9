"""Charts: the same data as text that fits, and as SVG that anybody can read."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.charts import COLOURS, DASHES, SYMBOLS, Axes, Series, line_chart, line_chart_svg, short

SVG = "{http://www.w3.org/2000/svg}"
RISING = Series("rising", ((0.0, 0.0), (10.0, 100.0)))
FLAT = Series("flat", ((0.0, 50.0), (10.0, 50.0)))
AXES = Axes((0, 10), (0, 100), "seconds", "tokens", marks=((5.0, 50.0),), mark_name="where they meet")


def test_a_chart_in_the_terminal_looks_like_this() -> None:
    assert line_chart([RISING, FLAT], AXES, 44, 12).splitlines() == [
        "tokens",
        "100 +                                   ***",
        "    |                               ****",
        " 80 +                          *****",
        " 60 +                     *****",
        "    |ooooooooooooooooooXooooooooooooooooooo",
        " 40 +            *****",
        " 20 +       *****",
        "    |   ****",
        "  0 +***",
        "    ++------+-------+------+-------+------+",
        "     0      2       4      6       8     10",
        "                                    seconds",
        "     * rising   o flat   X where they meet",
    ]


@given(
    width=st.integers(40, 160),
    height=st.integers(8, 40),
    points=st.lists(st.tuples(st.floats(-1e3, 1e7), st.floats(-1e6, 1e9)), min_size=1, max_size=8),
    scale=st.sampled_from(["linear", "log"]),
)
def test_a_chart_fits_its_width_and_is_plain_ascii(
    width: int, height: int, points: list[tuple[float, float]], scale: str
) -> None:
    axes = Axes((1, 1e6), (1, 1e4), "requests a month", "US dollars", scale, tuple(points), "a crossing")  # pyright: ignore
    drawn = line_chart([Series("a line", tuple(sorted(points)))] * 3, axes, width, height)
    assert drawn.isascii()
    assert max(map(len, drawn.splitlines())) <= width
    assert all(line == line.rstrip() for line in drawn.splitlines())


def rows_of(chart: str, symbol: str) -> dict[int, int]:
    """Column -> line of a symbol, in the plot."""
    found: dict[int, int] = {}
    for row, line in enumerate(chart.splitlines()[1:-4]):
        for column, cell in enumerate(line):
            if cell == symbol:
                found[column] = row
    return found


def test_a_line_that_rises_goes_up_from_left_to_right() -> None:
    rows = rows_of(line_chart([RISING], Axes((0, 10), (0, 100), "x", "y"), 60, 20), "*")
    columns = sorted(rows)
    assert rows[columns[0]] > rows[columns[-1]] == 0
    assert all(rows[left] >= rows[right] for left, right in pairwise(columns))


def test_a_power_law_is_straight_on_logarithmic_axes() -> None:
    law = Series("law", tuple((float(x), float(x)) for x in (1, 10, 100, 1000)))
    rows = rows_of(line_chart([law], Axes((1, 1000), (1, 1000), "x", "y", "log"), 44, 43), "*")
    assert len(set(rows.values())) >= 38


def test_a_steep_line_has_no_holes() -> None:
    step = Series("step", ((0.0, 0.0), (5.0, 0.0), (5.001, 100.0), (10.0, 100.0)))
    chart = line_chart([step], Axes((0, 10), (0, 100), "x", "y"), 60, 20)
    assert all("*" in line for line in chart.splitlines()[1:-4])


def test_what_lies_outside_is_cut_off() -> None:
    high = Series("high", ((0.0, 500.0), (10.0, 500.0)))
    assert not rows_of(line_chart([high], AXES, 60, 20), "*")


def test_a_mark_lies_on_its_lines() -> None:
    chart = line_chart([RISING, FLAT], AXES, 60, 21)
    ((column, row),) = rows_of(chart, "X").items()
    assert rows_of(chart, "o")[column - 1] == row
    assert "X where they meet" in chart


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1, "1"), (1500, "1.5k"), (20_000_000, "20M"), (3e9, "3G")]
)
def test_numbers_on_an_axis_are_short(value: float, text: str) -> None:
    assert short(value) == text


def drawn_svg(*series: Series) -> ET.Element:
    return ET.fromstring(line_chart_svg(series, AXES, "Tokens <a> & b", 'Rising meets "flat" & ends'))


def test_an_svg_says_in_words_what_it_shows() -> None:
    root = drawn_svg(RISING, FLAT)
    named = {child.get("id"): child.text for child in root if child.get("id")}
    assert root.get("role") == "img"
    assert root.get("aria-labelledby", "").split() == ["title", "desc"]
    assert named["title"] == "Tokens <a> & b"
    assert named["desc"] == 'Rising meets "flat" & ends'


def test_an_svg_needs_nothing_from_elsewhere_and_knows_dark_pages() -> None:
    text = line_chart_svg([RISING], AXES, "t", "d")
    assert text.count("http") == 1
    assert "xmlns" in text
    assert "url(http" not in text
    assert "<script" not in text
    assert "prefers-color-scheme:dark" in text


def test_an_svg_has_every_line_and_name() -> None:
    root = drawn_svg(RISING, FLAT)
    assert len(root.findall(f".//{SVG}polyline")) == 2
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"rising", "flat", "seconds", "tokens", "where they meet"} <= texts


def test_an_svgs_points_are_where_the_axes_say() -> None:
    root = drawn_svg(RISING)
    frame = next(box for box in root.findall(f"{SVG}rect") if box.get("class") == "grid")
    left, top, wide, high = (float(frame.get(name, "")) for name in ("x", "y", "width", "height"))
    line = root.find(f".//{SVG}polyline")
    assert line is not None
    assert line.get("points") == f"{left},{top + high} {left + wide},{top}"


def test_lines_are_told_apart_without_colour() -> None:
    assert len(set(SYMBOLS)) == len(set(DASHES)) == len(set(COLOURS)) == 8
    assert "X" not in SYMBOLS


@pytest.mark.parametrize(("place", "page"), [(0, "#ffffff"), (1, "#161616")], ids=["light", "dark"])
def test_every_colour_stands_out_from_its_page(place: int, page: str) -> None:
    for pair in COLOURS:
        lighter, darker = sorted((luminance(pair[place]), luminance(page)), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, pair[place]


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
