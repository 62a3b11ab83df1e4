"""Tables of the page, and what goes in their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.report.charts.canvas import NARROW, WIDTH, Chart
from headrace.report.markup import Markup, element, join
from headrace.report.palette import hue


@dataclass(frozen=True)
class Column:
    """A column: its heading, and whether it contains numbers."""

    name: str
    number: bool = True


def text(name: str) -> Column:
    """A column of words."""
    return Column(name, number=False)


def table(
    columns: Sequence[Column],
    rows: Sequence[Sequence[object]],
    caption: str = "",
    total: Sequence[object] | None = None,
    groups: Sequence[int] = (),
) -> Markup:
    """A table whose first column names the rows.

    Args:
        columns: one per cell of a row. A column without any values is left out.
        rows: cells; None shows as a dash.
        caption: shown above.
        total: a last row of sums.
        groups: indices of rows that begin a group.
    """
    shown = [i for i in range(len(columns)) if not rows or any(row[i] is not None for row in rows)]
    columns, rows = [columns[i] for i in shown], [[row[i] for i in shown] for row in rows]
    total = None if total is None else [total[i] for i in shown]
    head = element("tr", [element("th", c.name, scope="col", class_="n" if c.number else None) for c in columns])
    body = [_row(columns, row, "first" if i in groups and i else None) for i, row in enumerate(rows)]
    return element(
        "div",
        element(
            "table",
            element("caption", element("span", caption)) if caption else None,
            element("thead", head),
            element("tbody", body),
            element("tfoot", _row(columns, total, None)) if total is not None else None,
        ),
        class_="scroll",
        tabindex=0,
    )


def _row(columns: Sequence[Column], cells: Sequence[object], class_: str | None) -> Markup:
    of = "n" if columns[0].number else None
    # A row that goes on with the one above has no header of its own.
    drawn = [element("th", cells[0], scope="row", class_=of) if cells[0] not in (None, "") else element("td")]
    for column, cell in zip(columns[1:], cells[1:], strict=True):
        drawn.append(element("td", "–" if cell is None else cell, class_="n" if column.number else None))
    return element("tr", drawn, class_=class_)


def key(name: str, index: int) -> Markup:
    """A source's name next to its color."""
    return join([element("span", class_=f"key {hue(index)}"), name])


def bar(part: float, whole: float) -> Markup:
    """A bar proportional to a share of its cell. Hidden from screen readers, because the number is next to it."""
    width = 100 * part / whole if whole else 0
    drawn = element("rect", width=f"{width:.1f}%", height="100%")
    return element("svg", drawn, class_="bar", aria_hidden="true")


def both(draw: Callable[[float, str], Chart], name: str) -> Markup:
    """A chart drawn for wide and for narrow windows; the style sheet shows one of them.

    Args:
        draw: draws the chart, given its width and name.
        name: unique within the page.
    """
    drawn = [(class_, f"{name}-{class_}", width) for class_, width in (("wide", WIDTH), ("narrow", NARROW))]
    return join([element("div", draw(width, own).inline(own), class_=class_) for class_, own, width in drawn])


def figure(caption: str, *children: object) -> Markup:
    """A chart with its caption."""
    return element("figure", element("figcaption", caption), children)


def details(summary: str, *children: object, open_: bool = False) -> Markup:
    """A collapsible element."""
    return element("details", element("summary", summary), children, open=open_)
