"""Points in a square, joined by a line: a reliability plot, a learning curve."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.report.charts.canvas import NARROW, Chart, label, line, marker, ticks
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import round_number
from headrace.report.palette import hue

LEFT, TOP, PLOT = 62, 16, 220

Point = tuple[float, float, str]
"""x, y, and what is said of it."""


def square_chart(title: str, across: str, up: str, points: Sequence[Point], diagonal: bool = False) -> Chart:
    """Draw points in ascending order of x.

    Args:
        title: the chart's title.
        across, up: what the axes count.
        points: at least one.
        diagonal: whether both axes go from 0 to 1, with the line on which both are equal.
    """
    xs, ys = [x for x, _, _ in points], [y for _, y, _ in points]
    low_x, high_x = (0.0, 1.0) if diagonal else (0.0, max(xs))
    low_y, high_y = (0.0, 1.0) if diagonal else _span(min(ys), max(ys))
    width = NARROW - LEFT - 24
    base = TOP + PLOT

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + width * (x - low_x) / (high_x - low_x), base - PLOT * (y - low_y) / (high_y - low_y)

    parts: list[Markup] = [line(LEFT, base, LEFT + width, base, "axis")]
    parts += [label(f"{y:.4g}", LEFT - 6, at(low_x, y)[1] + 4, "end muted") for y in ticks(low_y, high_y, 5)]
    parts += [
        label(f"{x:g}" if diagonal else round_number(x), at(x, low_y)[0], base + 18, "middle muted")
        for x in ticks(low_x, high_x, 5)
    ]
    parts.append(label(across, LEFT + width / 2, base + 36, "middle muted"))
    parts.append(label(up, LEFT, TOP - 4, "muted"))
    if diagonal:
        parts.append(line(*at(0, 0), *at(1, 1), "grid"))
    places = [at(x, y) for x, y, _ in sorted(points)]
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(places))
    parts.append(element("path", d=path, class_=f"stroke series {hue(0)}", fill="none"))
    for (x, y), (_, value, said) in zip(places, sorted(points), strict=True):
        told = element("title", f"{value:.3f}" + (f", {said}" if said else ""))
        parts.append(element("g", told, marker(0), transform=f"translate({x:.1f} {y:.1f})"))
    described = "; ".join(f"{x:.3g}: {y:.3f}" for x, y, _ in sorted(points))
    return Chart(title, f"{up} by {across}. {described}.", NARROW, base + 44, join(parts))


def _span(low: float, high: float) -> tuple[float, float]:
    margin = max(0.001, 0.1 * (high - low))
    return low - margin, high + margin
