"""Means with their intervals: a panel for each measure, a line for each variant, a tick for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.report.charts.canvas import BOLD, WIDTH, Chart, fitted, label, line, marker, text_width, ticks
from headrace.report.markup import Markup, element, join

ROW, EDGE, GAP = 22, 2, 34


@dataclass(frozen=True)
class Interval:
    """A variant's line: its name, each seed's value, their mean, and half the interval's width, if there is one."""

    name: str
    values: Sequence[float]
    mean: float
    half: float | None


@dataclass(frozen=True)
class IntervalPanel:
    """A measure and its lines."""

    title: str
    rows: Sequence[Interval]


def interval_chart(title: str, description: str, panels: Sequence[IntervalPanel], width: float = WIDTH) -> Chart:
    """Draw panels below each other, each with an axis of its own.

    Args:
        title: what is shown.
        description: its message.
        panels: a measure each, with the same variants.
        width: the chart's width.
    """
    longest = max((text_width(row.name) for panel in panels for row in panel.rows), default=0.0)
    left = min(longest + 14, width * 0.4)
    parts: list[Markup] = []
    y = 0.0
    for panel in panels:
        drawn, tall = _panel(panel, left, width)
        parts.append(element("g", drawn, transform=f"translate(0 {y:.0f})"))
        y += tall + GAP
    return Chart(title, description, width, y, join(parts))


def _panel(panel: IntervalPanel, left: float, width: float) -> tuple[Markup, float]:
    ends = [end for row in panel.rows for end in (*row.values, row.mean - (row.half or 0), row.mean + (row.half or 0))]
    low, high = min(ends), max(ends)
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    low, high = low - margin, high + margin
    right = width - 24

    def at(value: float) -> float:
        return left + (right - left) * (value - low) / (high - low)

    base = 24 + ROW * len(panel.rows)
    parts = [label(fitted(panel.title, width - 2 * EDGE, BOLD), EDGE, 13, "strong")]
    for tick in ticks(low, high, max(2, round((right - left) / 110))):
        parts += [line(at(tick), 24, at(tick), base, "grid"), label(f"{tick:.4g}", at(tick), base + 16, "middle muted")]
    parts.append(line(left, base, right, base, "axis"))
    for number, row in enumerate(panel.rows):
        y = 24 + ROW * (number + 0.5)
        half = "" if row.half is None else f" ± {row.half:.3g}"
        tip = element("title", f"{row.name}: {row.mean:.5g}{half}")
        drawn = [line(at(value), y - 5, at(value), y + 5, "axis") for value in row.values]
        if row.half is not None:
            drawn.append(line(at(row.mean - row.half), y, at(row.mean + row.half), y, "axis"))
        drawn.append(element("g", marker(number), transform=f"translate({at(row.mean):.1f} {y:.1f})"))
        parts += [label(fitted(row.name, left - 12), EDGE, y + 4), element("g", tip, drawn)]
    return join(parts), base + 22
