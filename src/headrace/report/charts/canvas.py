"""What all charts share: the frame, fitting text, ticks, legends, and standalone files."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

from headrace.report.markup import Markup, element
from headrace.report.palette import chart_style, hue, variables

WIDTH = 960  # view box units, on a wide page and in files
NARROW = 440  # in a window of 500 pixels, where one unit is one pixel
SIZE = 12  # size of ordinary chart text, in pixels
BOLD = 1.12 * SIZE  # as wide as bold text of that size
# Widths in DejaVu Sans, the widest font that a page is likely to get.
_SLIM, _BROAD = frozenset(" .,:;!|'()[]{}/\\ijlftrI"), frozenset("mwMW@%&…→≈")


@dataclass(frozen=True)
class Chart:
    """A finished chart.

    Attributes:
        title: what it shows, in a few words.
        description: its message, for readers who cannot see it.
        width: in view box units.
        height: in view box units.
        body: the drawing.
    """

    title: str
    description: str
    width: float
    height: float
    body: Markup

    def inline(self, name: str) -> Markup:
        """The chart as part of a page that has the style sheet. ``name`` must be unique within the page."""
        return self._svg(name, Markup(""))

    def file(self, name: str) -> str:
        """The chart as a standalone SVG file, with style, title and background."""
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
            # An image has no parts for screen readers, but links must be found.
            role="group" if "<a " in (body or self.body) else "img",
            aria_labelledby=f"{name}-title {name}-desc",
        )


def text_width(text: str, size: float = SIZE) -> float:
    """Approximate width of a text in pixels, erring on the wide side, since the reader's font is unknown."""
    return size * sum(map(_em, text))


def _em(c: str) -> float:
    if c in _BROAD or unicodedata.east_asian_width(c) in "WF":
        return 1.0
    return 0.41 if c in _SLIM else 0.76 if c.isupper() else 0.64


def fitted(text: str, width: float, size: float = SIZE) -> str:
    """The text, shortened with an ellipsis if wider than ``width`` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text + "…"


def broken(text: str, width: float, size: float = SIZE) -> list[str]:
    """The text in lines of at most ``width`` pixels, split between words; a longer word is shortened."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fitted(line, width, size) for line in lines]


def label(text: object, x: float, y: float, class_: str = "") -> Markup:
    """A text at a position."""
    return element("text", text, x=float(x), y=float(y), class_=class_ or None)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def box(x: float, y: float, width: float, height: float, class_: str, **more: object) -> Markup:
    """A rectangle."""
    place = {"x": float(x), "y": float(y), "width": float(width), "height": float(height)}
    return element("rect", class_=class_, **place, **more)


def linked(drawn: Markup, href: str | None) -> Markup:
    """A drawing that leads somewhere, if there is an address."""
    return drawn if href is None else element("a", drawn, href=href)


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, in steps of 1, 2, 2.5 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks of a logarithmic axis: 1, 2 and 5 times powers of ten, or round numbers if the range is short."""
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
    """Lay out legend entries in lines, left to right; one wider than a line continues on the next.

    Returns:
        The drawing, and its height.
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
            # Moved as a whole, so that a texture starts at its corner.
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
    """The marker of the ``index``-th source at (0, 0): a shape as well as a color."""
    return element("path", d=_SHAPES[index % len(_SHAPES)], class_=f"fill mark {hue(index)}")
