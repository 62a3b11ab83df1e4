"""Document lengths per source before and after cleaning: a small histogram for each source, on one axis."""

from __future__ import annotations

import math
from dataclasses import dataclass

from headrace.report.charts.canvas import BOLD, WIDTH, Chart, Entry, box, fitted, flow, label, line, text_width
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, whole
from headrace.report.palette import hue

EDGE, PLOT, GAP = 20, 90, 56
LEAST = 560  # panels are side by side if there is room for two


@dataclass(frozen=True)
class Lengths:
    """A source's documents in each bin: 0 bytes, then from 2^(k-1) to below 2^k bytes; ``kept`` of them were kept."""

    source: str
    read: list[int]
    kept: list[int] | None


def lengths_chart(sources: list[Lengths], width: float = WIDTH) -> Chart:
    """Draw documents read as outlines and documents kept as fills.

    Args:
        sources: all sources, in the order of their colors.
        width: the chart's width.
    """
    filled = [k for s in sources for k, n in enumerate(s.read) if n] or [0]
    first, last = min(filled), max(filled)
    columns = 2 if width > LEAST and len(sources) > 1 else 1
    span = (width - EDGE * 2 - GAP * (columns - 1)) / columns
    parts: list[Markup] = []
    top = 4.0
    for index, source in enumerate(sources):
        left = EDGE + (index % columns) * (span + GAP)
        parts += _panel(source, index, left, top, span, first, last)
        if index % columns == columns - 1 or index == len(sources) - 1:
            top += PLOT + 64
    entries = [Entry("read", "outline")]
    if any(s.kept is not None for s in sources):
        entries.append(Entry("kept, in the color of the source", "kept"))
    legend, tall = flow(entries, EDGE, top + 8, width - 2 * EDGE)
    said = "; ".join(_said(source) for source in sources)
    return Chart("Lengths of documents, by source", f"{said}.", width, top + tall, join([*parts, legend]))


def _panel(source: Lengths, index: int, left: float, top: float, span: float, first: int, last: int) -> list[Markup]:
    most = max(source.read, default=0) or 1
    wide = span / (last - first + 1)
    base = top + 20 + PLOT
    peak = f"max {whole(max(source.read, default=0))}"
    parts = [
        label(fitted(source.source, span - text_width(peak) - 12, BOLD), left, top + 12, "strong"),
        label(peak, left + span, top + 12, "end muted"),
    ]
    for k in range(first, last + 1):
        read = source.read[k] if k < len(source.read) else 0
        if not read:
            continue
        x = left + (k - first) * wide
        kept = None if source.kept is None else source.kept[k] if k < len(source.kept) else 0
        tip = f"{source.source}, {_span(k)}: {whole(read)} read" + ("" if kept is None else f", {whole(kept)} kept")
        drawn = [element("title", tip)]
        if kept:
            tall = PLOT * kept / most
            drawn.append(box(x + 1, base - tall, wide - 2, tall, f"fill {hue(index)}"))
        tall = PLOT * read / most
        drawn.append(box(x + 1, base - tall, wide - 2, tall, "outline"))
        parts.append(element("g", drawn))
    parts.append(line(left, base, left + span, base, "axis"))
    every = max(1, math.ceil(46 / wide))  # "512 Ki" is 39 wide
    for k in range(first, last + 2):
        if (k - first) % every == 0:
            x = left + (k - first) * wide
            parts += [line(x, base, x, base + 4, "axis"), label(_edge(k), x, base + 17, "middle muted")]
    parts.append(label("bytes of text, bins double in width", left + span / 2, base + 33, "middle muted"))
    return parts


def _edge(k: int) -> str:
    """The lower bound of a bin, in binary units: 1, 512, 4 Ki."""
    if k == 0:
        return "0"
    power, rest = divmod(k - 1, 10)
    return f"{1 << rest} {('', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei')[power]}".rstrip()


def _span(k: int) -> str:
    return "0 bytes" if k == 0 else f"{_edge(k)} to less than {_edge(k + 1)} bytes"


def _said(source: Lengths) -> str:
    said = f"{source.source}: {counted(sum(source.read), 'document')} read{_middle(source.read)}"
    if source.kept is not None:
        said += f", {whole(sum(source.kept))} kept{_middle(source.kept)}"
    return said


def _middle(counts: list[int]) -> str:
    """The bin that contains the median."""
    seen = 0
    for k, n in enumerate(counts):
        seen += n
        if n and 2 * seen >= sum(counts):
            return f", median {_span(k)}"
    return ""
