"""Quantities of training over its tokens, such as the learning rate: one line or several, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from headrace.report.charts.axes import LEFT, RIGHT, At, axes, bands, path, smoothed, span, stage_names
from headrace.report.charts.canvas import WIDTH, Chart, Entry, box, flow, line
from headrace.report.markup import Markup, element, join

PLOT = 190
POINTS = 400  # of a line: the plot is 880 units wide


@dataclass(frozen=True)
class Series:
    """A quantity in one stage.

    Attributes:
        name: what the legend says; those of the same name share a color.
        class_: of its line.
        x: float64[n], tokens trained on.
        y: float64[n]; NaN where it is not known.
        smooth: whether to draw its moving average, as for losses, rather than means of spans.
    """

    name: str
    class_: str
    x: np.ndarray
    y: np.ndarray
    smooth: bool = False


@dataclass(frozen=True)
class Panel:
    """A chart of series.

    Attributes:
        title: what it shows.
        unit: the label of the axis.
        series: lines of all stages.
        marks: (x, y, what a reader is told there); y is NaN for a mark at the top.
        marked: what the legend says of them.
        log: whether the axis is logarithmic.
        zero: whether the axis begins at 0.
    """

    title: str
    unit: str
    series: list[Series]
    marks: list[tuple[float, float, str]] = field(default_factory=list)
    marked: str = ""
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Stage:
    """A stage on the axis of tokens."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Link:
    """A stretch of the axis that leads somewhere: from where to where, the address, and what a reader is told."""

    start: float
    end: float
    href: str
    tip: str


def series_chart(
    panel: Panel, stages: list[Stage], width: float = WIDTH, axis: str = "tokens", links: Sequence[Link] = ()
) -> Chart:
    """Draw a panel over the stages.

    Args:
        panel: what is drawn.
        stages: in training order.
        width: the chart's width.
        axis: the unit of x, ``tokens`` or ``steps``.
        links: stretches of x that can be clicked.
    """
    drawn = [Series(s.name, s.class_, *thinned(s.x, smoothed(s.y) if s.smooth else s.y)) for s in panel.series]
    values = [v for s in drawn for v in s.y if math.isfinite(v) and (v > 0 or not panel.log)]
    values += [y for _, y, _ in panel.marks if math.isfinite(y) and (y > 0 or not panel.log)]
    low, high = span(min(values, default=1.0), max(values, default=1.0), panel.log)
    low = 0.0 if panel.zero else low
    low_x, high_x = stages[0].start, max(stages[-1].end, stages[0].start + 1)
    names = stage_names(stages, low_x, high_x, width)
    top = 14 + 16 * (1 + max(row for _, _, row in names))

    def at_x(x: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * (x - low_x) / (high_x - low_x)

    def at_y(y: float) -> float:
        if panel.log:
            share = (math.log(max(y, low)) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            share = (y - low) / (high - low)
        return top + PLOT * (1 - share)

    spans = (low, high), (low_x, high_x)
    parts = [
        *bands(stages, names, at_x, top, PLOT),
        *axes(*spans, axis, panel.log, at_x, at_y, top, width, PLOT, panel.unit),
        *(path(s.x, s.y, at_x, at_y, f"stroke {s.class_}") for s in drawn),
        *(_link(one, at_x, top) for one in links),
        *(_mark(at_x(x), at_y(y) if math.isfinite(y) else top + 6, tip) for x, y, tip in panel.marks),
    ]
    kinds = {s.name: s.class_ for s in panel.series}
    entries = [Entry(name, drawn=line(-5, 0, 7, 0, f"stroke {class_}")) for name, class_ in kinds.items()]
    if panel.marks:
        entries.append(Entry(panel.marked, drawn=_mark(0, 0, panel.marked)))
    legend, tall = flow(entries, LEFT, top + PLOT + 58, width - LEFT - RIGHT)
    told = f"{panel.title}, {panel.unit}, over {axis}: {', '.join(kinds)}."
    return Chart(panel.title, told, width, top + PLOT + 50 + tall, join([*parts, legend]))


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most :data:`POINTS` points: means of spans, without what is not known; at the ends of the spans."""
    if len(x) <= POINTS:
        return x, y
    ends = np.linspace(0, len(x), POINTS + 1).astype(int)
    known = np.isfinite(y)
    sums = np.add.reduceat(np.where(known, y, 0.0), ends[:-1])
    counts = np.add.reduceat(known, ends[:-1])
    return x[ends[1:] - 1], np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _link(link: Link, at_x: At, top: float) -> Markup:
    left, right = at_x(link.start), at_x(link.end)
    area = box(left, top, max(1.0, right - left), PLOT, "stretch")
    return element("a", element("title", link.tip), area, href=link.href)


def _mark(x: float, y: float, tip: str) -> Markup:
    cross = element("path", d="M-4 -4L4 4M-4 4L4 -4", class_="stroke spike")
    return element("g", element("title", tip), cross, transform=f"translate({x:.1f} {y:.1f})")
