"""A table whose cells are shaded by value: what was removed from one source in favor of another."""

from __future__ import annotations

import math

from headrace.report.markup import Markup, element
from headrace.report.numbers import whole

SHADES = 8  # of a cell: classes h1 to h8 of the style sheet, since a policy may forbid styles in elements


def heat_table(
    rows: list[str], columns: list[str], values: dict[tuple[str, str], int], corner: str, caption: str
) -> Markup:
    """A table of counts with shaded cells, row sums and column sums.

    Args:
        rows: names of the rows.
        columns: names of the columns.
        values: (row, column) -> count; missing pairs are 0.
        corner: explains rows and columns.
        caption: the table's caption.
    """
    most = max(values.values(), default=0) or 1

    def cell(row: str, column: str) -> Markup:
        n = values.get((row, column), 0)
        # The square root keeps small counts visible next to large ones.
        heat = math.ceil(SHADES * (n / most) ** 0.5)
        return element("td", whole(n) if n else "·", class_=f"n heat h{heat}" if n else "n none")

    def total(counts: list[int]) -> Markup:
        return element("td", whole(sum(counts)), class_="n total")

    head = element(
        "tr",
        element("th", corner, scope="col"),
        [element("th", column, scope="col", class_="n") for column in columns],
        element("th", "total", scope="col", class_="n"),
    )
    body = [
        element(
            "tr",
            element("th", row, scope="row"),
            [cell(row, column) for column in columns],
            total([values.get((row, column), 0) for column in columns]),
        )
        for row in rows
    ]
    foot = element(
        "tr",
        element("th", "total", scope="row"),
        [total([values.get((row, column), 0) for row in rows]) for column in columns],
        total(list(values.values())),
    )
    return element(
        "table",
        element("caption", element("span", caption)),
        element("thead", head),
        element("tbody", body),
        element("tfoot", foot),
        class_="matrix",
    )
