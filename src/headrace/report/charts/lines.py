"""Lines over a logarithmic axis: several panels side by side, a line for each series."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from headrace.report.charts.canvas import WIDTH, Chart, Entry, flow, label, line, marker
from headrace.report.markup import Markup, element, join
from headrace.report.palette import hue

EDGE, PLOT, GAP = 48, 180, 56


@dataclass(frozen=True)
class Panel:
    """A panel: a title, what its horizontal axis counts, and series -> x -> y."""

    title: str
    axis: str
    series: Mapping[str, Mapping[float, float]]


def lines_chart(title: str, description: str, panels: list[Panel]) -> Chart:
    """Draw panels; the vertical axis of each goes from its least to its largest value, logarithmically."""
    span = (WIDTH - EDGE - GAP * len(panels)) / len(panels)
    parts: list[Markup] = []
    names = list(dict.fromkeys(name for panel in panels for name in panel.series))
    for index, panel in enumerate(panels):
        parts += _panel(panel, EDGE + index * (span + GAP), span, names)
    legend, tall = flow(
        [Entry(name, drawn=marker(i)) for i, name in enumerate(names)], EDGE, PLOT + 76, WIDTH - 2 * EDGE
    )
    return Chart(title, description, WIDTH, PLOT + 76 + tall, join([*parts, legend]))


def _panel(panel: Panel, left: float, span: float, names: list[str]) -> list[Markup]:
    xs = sorted({x for points in panel.series.values() for x in points})
    ys = [y for points in panel.series.values() for y in points.values() if y > 0 and math.isfinite(y)] or [1.0]
    low, high = min(ys), max(max(ys), min(ys) * 1.01)
    base = PLOT + 24

    def across(x: float) -> float:
        return left + span * (math.log(x / xs[0]) / math.log(xs[-1] / xs[0]) if len(xs) > 1 else 0.5)

    def up(y: float) -> float:
        return base - PLOT * math.log(y / low) / math.log(high / low)

    parts = [label(panel.title, left, 14, "strong"), line(left, base, left + span, base, "axis")]
    parts += [label(f"{y:.3g}", left - 6, up(y) + 4, "end muted") for y in (low, high)]
    parts += [label(f"{x:g}", across(x), base + 18, "middle muted") for x in xs]
    parts.append(label(panel.axis, left + span / 2, base + 36, "middle muted"))
    for name, points in panel.series.items():
        index = names.index(name)
        drawn = [(across(x), up(y)) for x, y in sorted(points.items()) if y > 0 and math.isfinite(y)]
        path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(drawn))
        parts.append(element("path", d=path, class_=f"stroke series {hue(index)}", fill="none"))
        parts += [element("g", marker(index), transform=f"translate({x:.1f} {y:.1f})") for x, y in drawn]
    return parts
