"""A histogram, stacked by source, of which stretches can be chosen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headrace.report.charts.canvas import Chart, box, label, line
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, short
from headrace.report.palette import hue

PLOT, EDGE = 96, 8
TOP = 20.0  # above the bars: their maximum


@dataclass(frozen=True)
class Bin:
    """A bin: from where to where, as said, documents by source, and where a click leads."""

    start: float
    end: float
    said: str
    counts: Sequence[int]
    href: str | None = None


def histogram_chart(
    title: str,
    bins: Sequence[Bin],
    hues: Sequence[int],
    chosen: tuple[float, float] | None,
    shown: Callable[[float], str],
    width: float,
) -> Chart:
    """Draw bins of equal width.

    Args:
        title: the measure.
        bins: in order; each starts where the one before ends.
        hues: the color of each source.
        chosen: the stretch that was chosen, if one was; the rest is faint.
        shown: a value as a label of the axis.
        width: of the chart.
    """
    most = max((sum(one.counts) for one in bins), default=0) or 1
    wide = (width - 2 * EDGE) / max(1, len(bins))
    base = TOP + PLOT
    parts: list[Markup] = []
    for i, one in enumerate(bins):
        x, y = EDGE + i * wide, base
        stack = []
        for source, n in enumerate(one.counts):
            tall = PLOT * n / most
            if n:
                y -= max(tall, 0.5)
                stack.append(box(x, y, max(0.5, wide - 1), max(tall, 0.5), f"fill {hue(hues[source])}"))
        within = chosen is None or (one.start < chosen[1] and one.end > chosen[0])
        # The whole column can be clicked, however low it is.
        area = box(x, TOP, wide, PLOT, "stretch")
        tip = element("title", f"{one.said}: {counted(sum(one.counts), 'document')}")
        drawn = element(
            "g", tip, stack, area, class_=None if within else "faint", data_start=one.start, data_end=one.end
        )
        parts.append(drawn if one.href is None else element("a", drawn, href=one.href))
    parts.append(line(EDGE, base, width - EDGE, base, "axis"))
    every = max(1, round(len(bins) * 62 / max(1.0, width - 2 * EDGE)))
    for i in range(0, len(bins) + 1, every):
        value = bins[i].start if i < len(bins) else bins[-1].end if bins else 0.0
        place = "muted" if not i else "end muted" if i == len(bins) else "middle muted"
        parts.append(label(shown(value), EDGE + i * wide, base + 16, place))
    peak = label(f"max {short(most)}", width - EDGE, TOP - 6, "end muted")
    said = "; ".join(f"{one.said}: {sum(one.counts)}" for one in bins if sum(one.counts))
    return Chart(title, f"{said}.", width, base + 22, join([*parts, peak]))
