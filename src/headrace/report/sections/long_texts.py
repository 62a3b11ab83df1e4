"""Long texts: loss by position, and needles, after each stage that was evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable

from headrace.report.charts.matrix import SHADES
from headrace.report.charts.positions import positions_chart
from headrace.report.facts import RunFacts
from headrace.report.long_facts import Cell
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import whole
from headrace.report.tables import both, figure


def long_texts(facts: RunFacts) -> Markup | None:
    """The section, or None if nothing was evaluated."""
    told = facts.long
    if not (told.curves or told.needles):
        return None
    parts: list[Markup] = []
    if told.curves:
        chart = both(lambda width, _: positions_chart(told.curves, width), "positions")
        parts.append(figure("Loss by position in long held-out documents, with standard errors over documents", chart))
    if told.needles:
        note = (
            f"A line in a held-out document tells a pass key, which is asked for at the end: {told.trials} keys for "
            "each length and depth. How many the model writes; how many it tells from nine others by their loss (by "
            "chance 10 %); and how much less the key's loss is than without that line."
        )
        parts += [element("h3", "Needles in haystacks"), element("p", note)]
        for title, value, say, dark in MAPS:
            drawn = [
                _heat(f"After {stage}: {title}", cells, value, say, dark)
                for stage, cells in told.needles.items()
                if any(value(cell) is not None for cell in cells)
            ]
            parts += [element("div", drawn, class_="pair")] if drawn else []
    return join(parts)


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"


def _of_key(nats: float) -> float:
    """How dark: a key of five digits has 11.5 nats for who knows nothing of it."""
    return max(0.0, min(1.0, nats / math.log(1e5)))


MAPS: tuple[tuple[str, Callable[[Cell], float | None], Callable[[float], str], Callable[[float], float]], ...] = (
    ("keys written", lambda cell: cell.exact, _share, float),
    ("the key has the lowest loss of ten candidates", lambda cell: cell.first, _share, float),
    ("nats that the needle takes off the key's loss", lambda cell: cell.without - cell.loss, "{:.2f}".format, _of_key),
)
"""Title, what is shown of a cell, how it is written, and how dark it is, from 0 to 1."""


def _heat(
    caption: str,
    cells: list[Cell],
    value: Callable[[Cell], float | None],
    say: Callable[[float], str],
    dark: Callable[[float], float],
) -> Markup:
    """A table of depths and lengths whose cells are shaded."""
    by_place = {(cell.depth, cell.length): value(cell) for cell in cells}
    depths, lengths = sorted({cell.depth for cell in cells}), sorted({cell.length for cell in cells})

    def drawn(depth: float, length: int) -> Markup:
        found = by_place.get((depth, length))
        if found is None:
            return element("td", "–", class_="n none")
        heat = math.ceil(SHADES * dark(found))
        return element("td", say(found), class_=f"n heat h{heat}" if heat else "n")

    head = element(
        "tr",
        element("th", "depth | tokens", scope="col"),
        [element("th", whole(length), scope="col", class_="n") for length in lengths],
    )
    body = [
        element(
            "tr",
            element("th", f"{100 * depth:.0f} %", scope="row"),
            [drawn(depth, length) for length in lengths],
        )
        for depth in depths
    ]
    table = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", head),
        element("tbody", body),
        class_="matrix",
    )
    return element("div", table, class_="scroll", tabindex=0)
