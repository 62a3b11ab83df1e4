"""The loss through all stages on one axis: raw, smoothed, and on each source's held-out text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headrace.report.charts.canvas import (
    BOLD,
    WIDTH,
    Chart,
    Entry,
    box,
    fitted,
    flow,
    label,
    line,
    log_ticks,
    marker,
    text_width,
    ticks,
)
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import round_number, whole
from headrace.report.palette import hue

LEFT, RIGHT, PLOT = 56, 24, 320
BINS = 800  # the plot is 880 units wide: more points than this overlap


@dataclass(frozen=True)
class LossStage:
    """The training of one stage.

    Attributes:
        name: the stage.
        x: float64[n], the end of each logged step: steps or tokens since training started.
        loss: float64[n], mean loss of each step in nats per token.
        start: x where the stage starts.
        end: x where it ends.
        held_out: source -> [(x, loss), ...], in ascending order of x.
    """

    name: str
    x: np.ndarray
    loss: np.ndarray
    start: float
    end: float
    held_out: dict[str, list[tuple[float, float]]]


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


def loss_chart(
    stages: list[LossStage], sources: list[str], axis: str = "tokens", log: bool = False, width: float = WIDTH
) -> Chart:
    """Draw the loss of consecutive stages.

    Args:
        stages: in training order; with at least one logged step in total.
        sources: all sources, in the order of their colors.
        axis: the unit of x, ``tokens`` or ``steps``.
        log: whether the loss axis is logarithmic.
        width: the chart's width.
    """
    low_x, high_x = stages[0].start, max(stages[-1].end, stages[0].start + 1)
    values = [v for s in stages for v in (*s.loss, *(loss for p in s.held_out.values() for _, loss in p))]
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = _range(min(finite), max(finite), log)
    names = _stage_names(stages, low_x, high_x, width)
    top = 14 + 16 * (1 + max(row for _, _, row in names))

    def at_x(x: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * (x - low_x) / (high_x - low_x)

    def at_y(loss: float) -> float:
        if log:
            loss, bounds = math.log(max(loss, 1e-9)), (math.log(low), math.log(high))
        else:
            bounds = (low, high)
        return top + PLOT * (1 - (loss - bounds[0]) / (bounds[1] - bounds[0]))

    parts = [*_bands(stages, names, at_x, top), *_axes((low, high), (low_x, high_x), axis, log, at_x, at_y, top, width)]
    for stage in stages:
        parts += _train_lines(stage, at_x, at_y)
    for stage in stages:
        parts += _held_out_lines(stage, sources, at_x, at_y)
    entries = [
        Entry("training, each logged step", drawn=line(-5, 0, 7, 0, "stroke raw")),
        Entry("smoothed (half-life: 1/50 of the stage)", drawn=line(-5, 0, 7, 0, "stroke smooth")),
    ]
    seen = [name for name in sources if any(name in s.held_out for s in stages)]
    entries += [Entry(f"held out: {name}", drawn=marker(sources.index(name))) for name in seen]
    legend, tall = flow(entries, LEFT, top + PLOT + 58, width - LEFT - RIGHT)
    title = f"Loss through {'the stages' if len(stages) > 1 else 'the stage'}{', logarithmic' if log else ''}"
    return Chart(title, _description(stages, axis), width, top + PLOT + 50 + tall, join([*parts, legend]))


def _range(low: float, high: float, log: bool) -> tuple[float, float]:
    if high <= low:
        return (low / 1.1, high * 1.1) if log else (low - 0.5, high + 0.5)
    if log:
        margin = (high / low) ** 0.04
        return low / margin, high * margin
    return max(0.0, low - 0.04 * (high - low)), high + 0.04 * (high - low)


def _stage_names(stages: list[LossStage], low: float, high: float, width: float) -> list[tuple[str, float, int]]:
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


def _bands(
    stages: list[LossStage], names: list[tuple[str, float, int]], at_x: Callable[[float], float], top: float
) -> list[Markup]:
    parts = []
    for i, (stage, (name, middle, row)) in enumerate(zip(stages, names, strict=True)):
        left, right = at_x(stage.start), at_x(stage.end)
        y = top - 8 - 16 * row
        parts.append(box(left, top, right - left, PLOT, "band" if i % 2 == 0 else "surface"))
        if row:
            parts.append(line((left + right) / 2, y + 3, (left + right) / 2, top, "grid"))
        parts.append(label(name, middle, y, "middle strong"))
    return parts


def _axes(
    span_y: tuple[float, float],
    span_x: tuple[float, float],
    axis: str,
    log: bool,
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    top: float,
    width: float,
) -> list[Markup]:
    parts = []
    for tick in log_ticks(*span_y) if log else ticks(*span_y):
        y = at_y(tick)
        parts += [line(LEFT, y, width - RIGHT, y, "grid"), label(f"{tick:.3g}", LEFT - 8, y + 4, "end muted")]
    for tick in ticks(*span_x, round(width / 110)):
        x = at_x(tick)
        parts += [
            line(x, top + PLOT, x, top + PLOT + 5, "axis"),
            label(round_number(tick), x, top + PLOT + 18, "middle muted"),
        ]
    what = "tokens trained on" if axis == "tokens" else "optimizer steps"
    return [
        *parts,
        line(LEFT, top + PLOT, width - RIGHT, top + PLOT, "axis"),
        label(what, (LEFT + width - RIGHT) / 2, top + PLOT + 34, "middle muted"),
        element(
            "text",
            "loss, nats per token",
            x=0,
            y=0,
            class_="middle muted",
            transform=f"translate(14 {top + PLOT / 2:.0f}) rotate(-90)",
        ),
    ]


def _train_lines(stage: LossStage, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> list[Markup]:
    n = len(stage.loss)
    if n == 0:
        return []
    smooth = smoothed(stage.loss)
    if n <= BINS:
        raw = _path(stage.x, stage.loss, at_x, at_y, "stroke raw")
    else:
        # With very many points, draw only the lowest and highest of each bin.
        cuts = np.linspace(0, n, BINS + 1).astype(int)
        pieces = [slice(a, b) for a, b in itertools.pairwise(cuts) if b > a]
        xs = [float(stage.x[p][-1]) for p in pieces]
        finite = np.where(np.isfinite(stage.loss), stage.loss, smooth)
        upper = [(at_x(x), at_y(float(finite[p].max()))) for x, p in zip(xs, pieces, strict=True)]
        lower = [(at_x(x), at_y(float(finite[p].min()))) for x, p in zip(xs, pieces, strict=True)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in upper + lower[::-1])
        raw = element("polygon", points=points, class_="rawband")
        keep = [p.stop - 1 for p in pieces]
        return [raw, _path(stage.x[keep], smooth[keep], at_x, at_y, "stroke smooth")]
    return [raw, _path(stage.x, smooth, at_x, at_y, "stroke smooth")]


def _path(
    xs: np.ndarray, ys: np.ndarray, at_x: Callable[[float], float], at_y: Callable[[float], float], class_: str
) -> Markup:
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


def _held_out_lines(
    stage: LossStage, sources: list[str], at_x: Callable[[float], float], at_y: Callable[[float], float]
) -> list[Markup]:
    parts = []
    for name, points in stage.held_out.items():
        index = sources.index(name)
        xs, ys = np.array([x for x, _ in points]), np.array([y for _, y in points])
        if len(points) > 1:
            parts.append(_path(xs, ys, at_x, at_y, f"stroke held {hue(index)}"))
        for x, y in points:
            if math.isfinite(y):
                place = f"translate({at_x(x):.1f} {at_y(y):.1f})"
                tip = element("title", f"{name}, held out, {stage.name}: {y:.3f}")
                parts.append(element("g", tip, marker(index), transform=place))
    return parts


def _description(stages: list[LossStage], axis: str) -> str:
    said = []
    for stage in stages:
        if len(stage.loss):
            smooth = smoothed(stage.loss)
            span = f"{whole(stage.end - stage.start)} {axis}"
            said.append(f"{stage.name}: from {stage.loss[0]:.2f} to {smooth[-1]:.2f} (smoothed) over {span}")
    return "Mean loss in nats per token. " + "; ".join(said) + "."
