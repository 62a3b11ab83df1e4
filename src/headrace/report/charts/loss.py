"""The loss through all stages on one axis: raw, smoothed, and on each source's held-out text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headrace.report.charts.axes import LEFT, RIGHT, axes, bands, path, smoothed, span, stage_names
from headrace.report.charts.canvas import (
    WIDTH,
    Chart,
    Entry,
    flow,
    line,
    marker,
)
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import whole
from headrace.report.palette import hue

PLOT = 320
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
    finite = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
    low, high = span(min(finite), max(finite), log)
    names = stage_names(stages, low_x, high_x, width)
    top = 14 + 16 * (1 + max(row for _, _, row in names))

    def at_x(x: float) -> float:
        return LEFT + (width - LEFT - RIGHT) * (x - low_x) / (high_x - low_x)

    def at_y(loss: float) -> float:
        if log:
            loss, bounds = math.log(max(loss, 1e-9)), (math.log(low), math.log(high))
        else:
            bounds = (low, high)
        return top + PLOT * (1 - (loss - bounds[0]) / (bounds[1] - bounds[0]))

    parts = [
        *bands(stages, names, at_x, top, PLOT),
        *axes((low, high), (low_x, high_x), axis, log, at_x, at_y, top, width, PLOT, "loss, nats per token"),
    ]
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


def _train_lines(stage: LossStage, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> list[Markup]:
    n = len(stage.loss)
    if n == 0:
        return []
    smooth = smoothed(stage.loss)
    if n <= BINS:
        raw = path(stage.x, stage.loss, at_x, at_y, "stroke raw")
    else:
        # With very many points, draw only the lowest and highest of each bin.
        cuts = np.linspace(0, n, BINS + 1).astype(int)
        finite = np.where(np.isfinite(stage.loss), stage.loss, smooth)
        pieces = [slice(a, b) for a, b in itertools.pairwise(cuts) if b > a and np.isfinite(finite[a:b]).all()]
        xs = [float(stage.x[p][-1]) for p in pieces]
        upper = [(at_x(x), at_y(float(finite[p].max()))) for x, p in zip(xs, pieces, strict=True)]
        lower = [(at_x(x), at_y(float(finite[p].min()))) for x, p in zip(xs, pieces, strict=True)]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in upper + lower[::-1])
        raw = element("polygon", points=points, class_="rawband")
        keep = [p.stop - 1 for p in pieces]
        return [raw, path(stage.x[keep], smooth[keep], at_x, at_y, "stroke smooth")]
    return [raw, path(stage.x, smooth, at_x, at_y, "stroke smooth")]


def _held_out_lines(
    stage: LossStage, sources: list[str], at_x: Callable[[float], float], at_y: Callable[[float], float]
) -> list[Markup]:
    parts = []
    for name, points in stage.held_out.items():
        index = sources.index(name)
        xs, ys = np.array([x for x, _ in points]), np.array([y for _, y in points])
        if len(points) > 1:
            parts.append(path(xs, ys, at_x, at_y, f"stroke held {hue(index)}"))
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
