"""Loss by position in long documents, over a logarithmic axis: a line a stage, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from headrace.report.charts.axes import LEFT, RIGHT, At, labeled, path, shown, span
from headrace.report.charts.canvas import WIDTH, Chart, Entry, flow, label, line, marker, ticks
from headrace.report.long_facts import Bin, Curve
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, round_number, whole
from headrace.report.palette import hue

TOP, PLOT = 30, 260
# The first tokens of documents have twice the loss of those at 16, which would leave the rest of the curve flat.
DRAWN_FROM = 16


def positions_chart(curves: Mapping[str, Curve], width: float = WIDTH) -> Chart:
    """Draw the curves of stages, at least one, each with at least one bin.

    Positions before :data:`DRAWN_FROM` are left out of longer texts. A thin vertical line is where a stage's rows ended
    in training.
    """
    far = max(one.last for curve in curves.values() for one in curve.bins)
    near = DRAWN_FROM if far >= 4 * DRAWN_FROM else 1
    curves = {
        name: replace(curve, bins=[one for one in curve.bins if one.first >= near]) for name, curve in curves.items()
    }
    bins = [one for curve in curves.values() for one in curve.bins]
    low, high = span(min(one.loss - _error(one) for one in bins), max(one.loss + _error(one) for one in bins))

    def at_x(position: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * math.log(position / near) / math.log(max(far, 2) / near)

    def at_y(loss: float) -> float:
        return TOP + PLOT * (1 - (loss - low) / (high - low))

    parts = []
    for tick, said in labeled(ticks(low, high), shown):
        parts += [
            line(LEFT, at_y(tick), width - RIGHT, at_y(tick), "grid"),
            label(said, LEFT - 8, at_y(tick) + 4, "end muted"),
        ]
    every = max(1, math.ceil(math.log2(max(far, 2) / near) * 52 / (width - LEFT - RIGHT)))  # a label is up to 52 wide
    for power in range(round(math.log2(near)), math.floor(math.log2(far)) + 1, every):
        x = at_x(2**power)
        parts += [
            line(x, TOP + PLOT, x, TOP + PLOT + 5, "axis"),
            label(whole(2**power) if power < 14 else round_number(2**power), x, TOP + PLOT + 18, "middle muted"),
        ]
    for rows in sorted({curve.row for curve in curves.values() if near <= curve.row <= far}):
        x = at_x(rows)
        names = ", ".join(name for name, curve in curves.items() if curve.row == rows)
        parts += [line(x, TOP, x, TOP + PLOT, "axis"), label(f"rows of {names}", x, TOP - 10, "end muted")]
    for index, curve in enumerate(curves.values()):
        parts += _curve(curve, index, at_x, at_y)
    parts += [
        line(LEFT, TOP + PLOT, width - RIGHT, TOP + PLOT, "axis"),
        label("tokens before, logarithmic", (LEFT + width - RIGHT) / 2, TOP + PLOT + 34, "middle muted"),
        element(
            "text",
            "loss, nats per token",
            x=0,
            y=0,
            class_="middle muted",
            transform=f"translate(14 {TOP + PLOT / 2:.0f}) rotate(-90)",
        ),
    ]
    entries = [
        Entry(f"after {name} ({counted(curve.documents, 'document')})", drawn=marker(index))
        for index, (name, curve) in enumerate(curves.items())
    ]
    legend, tall = flow(entries, LEFT, TOP + PLOT + 58, width - LEFT - RIGHT)
    said = "; ".join(f"{name}: {_ends(curve)}" for name, curve in curves.items())
    told = f"Mean loss of held-out documents in nats per token by the number of tokens before. {said}."
    return Chart("Loss by position in long documents", told, width, TOP + PLOT + 50 + tall, join([*parts, legend]))


def _ends(curve: Curve) -> str:
    first, last = curve.bins[0], curve.bins[-1]
    return f"{first.loss:.2f} at {whole(first.first)}, {last.loss:.2f} at {whole(last.first)} to {whole(last.last)}"


def _error(one: Bin) -> float:
    return one.error or 0.0


def _curve(curve: Curve, index: int, at_x: At, at_y: At) -> list[Markup]:
    xs = np.array([math.sqrt(one.first * one.last) for one in curve.bins])
    ys = np.array([one.loss for one in curve.bins])
    parts = [path(xs, ys, at_x, at_y, f"stroke series {hue(index)}")]
    for x, one in zip(xs.tolist(), curve.bins, strict=True):
        if one.error:
            ends = at_y(one.loss - one.error), at_y(one.loss + one.error)
            parts.append(line(at_x(x), ends[0], at_x(x), ends[1], f"stroke {hue(index)}"))
        tip = f"{whole(one.first)} to {whole(one.last)} tokens before: {one.loss:.3f}"
        tip += f" ± {one.error:.3f}" if one.error is not None else ""
        place = f"translate({at_x(x):.1f} {at_y(one.loss):.1f})"
        parts.append(element("g", element("title", tip), marker(index), transform=place))
    return parts
