"""Documents kept and removed by reason, one bar a source."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.report.charts.canvas import WIDTH, Chart, Entry, box, fitted, flow, label, line
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, whole
from headrace.report.palette import hue

LEFT, RIGHT, BAR = 118, 24, 20

# The colour of a reason; every ``filter:<name>`` has that of filters.
_HUES = {"duplicate": 0, "short": 1, "license": 2, "quality": 3, "filter": 4, "contaminated": 5, "holdout": 6}


@dataclass(frozen=True)
class RemovalBar:
    """What became of the documents of a source. ``quarantined`` records never became documents."""

    source: str
    kept: int
    removed: dict[str, int]
    quarantined: int = 0

    @property
    def documents(self) -> int:
        """Kept and removed."""
        return self.kept + sum(self.removed.values())


def reason_hue(reason: str) -> str:
    """The colour class of a reason."""
    return hue(_HUES.get(reason.split(":")[0], 7))


def removal_chart(bars: list[RemovalBar]) -> Chart:
    """Draw shares of each source's documents; the counts stand beneath each bar."""
    parts: list[Markup] = []
    y = 8.0
    span = WIDTH - LEFT - RIGHT
    for bar in bars:
        parts.append(label(fitted(bar.source, LEFT - 16), LEFT - 12, y + 14, "end strong"))
        x = float(LEFT)
        for name, n, class_ in _pieces(bar):
            width = span * n / max(1, bar.documents)
            tip = element("title", f"{bar.source}, {name}: {whole(n)} ({percent(n, bar.documents)})")
            edge = line(x, y, x, y + BAR, "gap") if x > LEFT else None
            parts.append(element("g", tip, box(x, y, width, BAR, class_), edge))
            x += width
        entries = [
            Entry(f"{name} {whole(n)} ({percent(n, bar.documents)})", class_) for name, n, class_ in _pieces(bar)
        ]
        if bar.quarantined:
            entries.append(Entry(f"quarantined {whole(bar.quarantined)} (not read as documents)", "fill c7"))
        legend, tall = flow(entries, LEFT, y + BAR + 17, span)
        parts.append(legend)
        y += BAR + tall + 18
    said = "; ".join(
        f"{bar.source}: {counted(bar.documents, 'document')}, "
        + ", ".join(f"{name} {whole(n)}" for name, n, _ in _pieces(bar))
        for bar in bars
    )
    return Chart("Documents kept and removed, by source", said + ".", y, join(parts))


def _pieces(bar: RemovalBar) -> list[tuple[str, int, str]]:
    removed = sorted(((n, reason) for reason, n in bar.removed.items() if n), key=lambda pair: (-pair[0], pair[1]))
    return [("kept", bar.kept, "kept"), *((reason, n, f"fill {reason_hue(reason)}") for n, reason in removed)]
