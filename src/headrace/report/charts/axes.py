"""What the charts of training share: stages as bands on an axis of tokens, axes, lines, and smoothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from headrace.report.charts.canvas import BOLD, box, fitted, label, line, log_ticks, text_width, ticks
from headrace.report.markup import Markup, element
from headrace.report.numbers import round_number

LEFT, RIGHT = 62, 24

At = Callable[[float], float]
"""From a value to a place in the drawing."""


class Band(Protocol):
    """A stage on the axis."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def start(self) -> float:
        """Where it starts."""

    @property
    def end(self) -> float:
        """Where it ends."""


def span(low: float, high: float, log: bool = False) -> tuple[float, float]:
    """The ends of an axis for values from ``low`` to ``high``."""
    if high <= low:
        return (low / 1.1, high * 1.1) if log else (low - 0.5, high + 0.5)
    if log:
        margin = (high / low) ** 0.04
        return low / margin, high * margin
    return max(0.0, low - 0.04 * (high - low)), high + 0.04 * (high - low)


def stage_names(stages: Sequence[Band], low: float, high: float, width: float) -> list[tuple[str, float, int]]:
    """(name, center in pixels, line): names that would overlap move up a line."""
    span = width - LEFT - RIGHT
    scale = span / (high - low)
    ends: list[float] = []
    placed = []
    for stage in stages:
        name = fitted(stage.name, span, BOLD)
        half = text_width(name, BOLD) / 2
        middle = LEFT + scale * ((stage.start + stage.end) / 2 - low)
        middle = min(max(middle, LEFT + half), width - RIGHT - half)
        row = next((r for r, end in enumerate(ends) if end + 10 < middle - half), len(ends))
        ends[row:] = [middle + half, *ends[row + 1 :]]
        placed.append((name, middle, row))
    return placed


def bands(
    stages: Sequence[Band], names: list[tuple[str, float, int]], at_x: At, top: float, plot: float
) -> list[Markup]:
    """A band behind each stage, with its name above."""
    parts = []
    for i, (stage, (name, middle, row)) in enumerate(zip(stages, names, strict=True)):
        left, right = at_x(stage.start), at_x(stage.end)
        y = top - 8 - 16 * row
        parts.append(box(left, top, right - left, plot, "band" if i % 2 == 0 else "surface"))
        if row:
            parts.append(line((left + right) / 2, y + 3, (left + right) / 2, top, "grid"))
        parts.append(label(name, middle, y, "middle strong"))
    return parts


def axes(
    span_y: tuple[float, float],
    span_x: tuple[float, float],
    axis: str,
    log: bool,
    at_x: At,
    at_y: At,
    top: float,
    width: float,
    plot: float,
    said: str,
) -> list[Markup]:
    """Grid, ticks and labels; ``said`` is the label of y."""
    parts = []
    for tick, said_there in labeled(log_ticks(*span_y) if log else ticks(*span_y), shown):
        y = at_y(tick)
        parts += [line(LEFT, y, width - RIGHT, y, "grid"), label(said_there, LEFT - 8, y + 4, "end muted")]
    for tick, said_there in labeled(ticks(*span_x, round(width / 110)), round_number):
        x = at_x(tick)
        parts += [
            line(x, top + plot, x, top + plot + 5, "axis"),
            label(said_there, x, top + plot + 18, "middle muted"),
        ]
    what = "tokens trained on" if axis == "tokens" else "optimizer steps"
    return [
        *parts,
        line(LEFT, top + plot, width - RIGHT, top + plot, "axis"),
        label(what, (LEFT + width - RIGHT) / 2, top + plot + 34, "middle muted"),
        element(
            "text",
            said,
            x=0,
            y=0,
            class_="middle muted",
            transform=f"translate(14 {top + plot / 2:.0f}) rotate(-90)",
        ),
    ]


def labeled(places: Sequence[float], say: Callable[[float], str]) -> list[tuple[float, str]]:
    """Ticks with their labels: short ones, unless these are alike, as between step 10,001 and 10,009."""
    said = list(map(say, places))
    for digits in range(9):
        if len(set(said)) == len(said):
            break
        said = [f"{tick:,.{digits}f}" for tick in places]
    return list(zip(places, said, strict=True))


def shown(tick: float) -> str:
    """A tick's label, at most 6 characters wide."""
    if abs(tick) >= 1000:
        return round_number(tick)
    return f"{tick:.1e}".replace("e-0", "e-").replace(".0e", "e") if 0 < abs(tick) < 0.001 else f"{tick:.3g}"


def path(xs: np.ndarray, ys: np.ndarray, at_x: At, at_y: At, class_: str) -> Markup:
    """A line through the finite points, broken where a value is not finite."""
    parts: list[str] = []
    lift = True
    for x, y in zip(xs, ys, strict=True):
        if math.isfinite(y):
            parts.append(f"{'M' if lift else 'L'}{at_x(float(x)):.1f} {at_y(float(y)):.1f}")
        lift = not math.isfinite(y)
    if len(parts) == 1:
        parts.append("h0.1")
    return element("path", d="".join(parts), class_=class_)


def half_life(n: int) -> float:
    """Steps after which a loss counts half in the smoothed line: a fiftieth of the stage, at least one."""
    return max(1.0, n / 50)


def smoothed(loss: np.ndarray) -> np.ndarray:
    """Exponential moving average of float64[n], bias-corrected as in Adam, with :func:`half_life`."""
    decay = 0.5 ** (1 / half_life(len(loss)))
    out = np.empty(len(loss))
    total = weight = 0.0
    for i, value in enumerate(loss):
        if math.isfinite(value):
            total, weight = decay * total + value, decay * weight + 1
        out[i] = total / weight if weight else math.nan
    return out
