"""Documents kept and removed by reason, one bar per source."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.report.charts.canvas import BOLD, WIDTH, Chart, Entry, box, fitted, flow, label, line
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, whole
from headrace.report.palette import texture

EDGE, BAR = 2, 20


@dataclass(frozen=True)
class RemovalBar:
    """What happened to a source's documents. ``quarantined`` records never became documents."""

    source: str
    kept: int
    removed: dict[str, int]
    quarantined: int = 0

    @property
    def documents(self) -> int:
        """Kept and removed."""
        return self.kept + sum(self.removed.values())


def removal_chart(bars: list[RemovalBar], reasons: list[str], width: float = WIDTH) -> Chart:
    """Draw shares of each source's documents, with counts below each bar.

    Args:
        bars: one per source.
        reasons: all reasons, in the order of their fills.
        width: the chart's width.
    """
    parts: list[Markup] = []
    y = 2.0
    span = width - 2 * EDGE
    fills = {reason: f"fill {texture(i)}" for i, reason in enumerate(reasons)}
    for bar in bars:
        parts.append(label(fitted(bar.source, span, BOLD), EDGE, y + 12, "strong"))
        y += 18
        x = float(EDGE)
        for name, n, class_ in _pieces(bar, fills):
            wide = span * n / max(1, bar.documents)
            tip = element("title", f"{bar.source}, {name}: {whole(n)} ({percent(n, bar.documents)})")
            edge = line(x, y, x, y + BAR, "gap") if x > EDGE else None
            parts.append(element("g", tip, box(x, y, wide, BAR, class_), edge))
            x += wide
        entries = [
            Entry(f"{name} {whole(n)} ({percent(n, bar.documents)})", class_) for name, n, class_ in _pieces(bar, fills)
        ]
        if bar.quarantined:
            entries.append(Entry(f"quarantined {whole(bar.quarantined)} (not read as documents)", "quarantined"))
        legend, tall = flow(entries, EDGE, y + BAR + 17, span)
        parts.append(legend)
        y += BAR + tall + 18
    said = "; ".join(
        f"{bar.source}: {counted(bar.documents, 'document')}, "
        + ", ".join(f"{name} {whole(n)}" for name, n, _ in _pieces(bar, fills))
        for bar in bars
    )
    return Chart("Documents kept and removed, by source", said + ".", width, y, join(parts))


def _pieces(bar: RemovalBar, fills: dict[str, str]) -> list[tuple[str, int, str]]:
    removed = sorted(((n, reason) for reason, n in bar.removed.items() if n), key=lambda pair: (-pair[0], pair[1]))
    return [("kept", bar.kept, "kept"), *((reason, n, fills[reason]) for n, reason in removed)]
