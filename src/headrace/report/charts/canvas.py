"""What all charts share: the frame, text that fits, ticks, legends, and the file form."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from headrace.report.markup import Markup, element
from headrace.report.palette import chart_style, hue, variables

WIDTH = 960  # units of a view box, on a wide page and in a file
NARROW = 440  # in a window of 500 pixels, where a unit is a pixel then
SIZE = 12  # pixels of ordinary chart text
BOLD = 1.12 * SIZE  # as wide as bold text of that size
# Widths in DejaVu Sans, the widest of the fonts that a page may get.
_SLIM, _BROAD = frozenset(" .,:;!|'()[]{}/\\ijlftrI"), frozenset("mwMW@%&…→≈")


@dataclass(frozen=True)
class Chart:
    """A finished chart.

    Attributes:
        title: what it shows, in a few words.
        description: what it says, for those who do not see it.
        width: in the units of its view box.
        height: in the same units.
        body: what is drawn.
    """

    title: str
    description: str
    width: float
    height: float
    body: Markup

    def inline(self, name: str) -> Markup:
        """The chart as part of a page that carries the style sheet. ``name`` is unique in the page."""
        return self._svg(name, Markup(""))

    def file(self, name: str) -> str:
        """The chart as an SVG file of its own, with its style, title and ground."""
        style = element("style", Markup(variables() + chart_style()))
        ground = element("rect", width="100%", height="100%", class_="surface")
        heading = element("text", self.title, x=16, y=26, class_="title")
        shifted = element("g", self.body, transform="translate(0 40)")
        svg = self._svg(name, Markup(style + ground + heading), shifted, 44)
        return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}\n'

    def _svg(self, name: str, before: Markup, body: Markup | None = None, extra: float = 0) -> Markup:
        return element(
            "svg",
            element("title", self.title, id=f"{name}-title"),
            element("desc", self.description, id=f"{name}-desc"),
            before,
            body or self.body,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {self.width:g} {math.ceil(self.height + extra)}",
            class_="chart",
            role="img",
            aria_labelledby=f"{name}-title {name}-desc",
        )


def text_width(text: str, size: float = SIZE) -> float:
    """About how many pixels wide a text is; on the wide side, since the reader's font is not known."""
    return size * sum(map(_em, text))


def _em(c: str) -> float:
    if c in _BROAD or unicodedata.east_asian_width(c) in "WF":
        return 1.0
    return 0.41 if c in _SLIM else 0.76 if c.isupper() else 0.64


def fitted(text: str, width: float, size: float = SIZE) -> str:
    """The text, shortened with an ellipsis if it is wider than ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def broken(text: str, width: float, size: float = SIZE) -> list[str]:
    """The text in lines of at most ``width`` pixels, cut between words; a word longer than that is shortened."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fitted(line, width, size) for line in lines]


def label(text: object, x: float, y: float, class_: str = "") -> Markup:
    """A text at a place."""
    return element("text", text, x=float(x), y=float(y), class_=class_ or None)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, **more: object) -> Markup:
    """A rectangle."""
    place = {"x": float(x), "y": float(y), "width": float(width), "height": float(height)}
    return element("rect", class_=class_, **place, **more)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``: steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 times powers of ten, or round numbers where the span is short."""
    if high / low < 8:
        return [tick for tick in ticks(low, high, 6) if tick > 0]
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**p for p in powers for m in (1, 2, 5) if low <= m * 10.0**p <= high]


@dataclass(frozen=True)
class Entry:
    """A legend entry: the class of its swatch, or a piece of SVG around (0, 0), and its text."""

    text: str
    swatch: str = ""
    drawn: Markup | None = None


def flow(entries: list[Entry], x: float, y: float, width: float) -> tuple[Markup, float]:
    """Lay legend entries in lines, left to right; one that is wider than a line goes on in the next.

    Returns:
        what is drawn, and the height it takes.
    """
    parts: list[Markup] = []
    at, row = x, y
    for entry in entries:
        lines = broken(entry.text, width - 22)
        needs = 16 + text_width(max(lines, key=text_width)) + 16
        if at > x and at + needs - 16 > x + width:
            at, row = x, row + 18
        if entry.drawn is not None:
            parts.append(element("g", entry.drawn, transform=f"translate({at + 5:.1f} {row - 4:.1f})"))
        else:
            # Moved as a whole, so that a texture begins at its corner.
            swatch = box(0, 0, 12, 12, entry.swatch, rx=2)
            parts.append(element("g", swatch, transform=f"translate({at - 1:.1f} {row - 10:.1f})"))
        for number, text in enumerate(lines):
            row += 15 if number else 0
            parts.append(label(text, at + 16, row))
        at = at + needs if len(lines) == 1 else x + width
    return Markup("".join(parts)), row - y + 18


_SHAPES = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",  # circle
    "M-3.6 -3.6h7.2v7.2h-7.2z",  # square
    "M0 -4.8L4.6 3.4H-4.6z",  # triangle
    "M0 -5L5 0L0 5L-5 0z",  # diamond
    "M0 4.8L4.6 -3.4H-4.6z",  # triangle, point down
    "M-1.6 -4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",  # cross
    "M0 -5L4.8 -1.5L2.9 4.1H-2.9L-4.8 -1.5z",  # pentagon
    "M-4.6 -2h9.2v4h-9.2z",  # bar
)


def marker(index: int) -> Markup:
    """The marker of the ``index``-th source at (0, 0): its own shape as well as its own colour."""
    return element("path", d=_SHAPES[index % len(_SHAPES)], class_=f"fill mark {hue(index)}")
