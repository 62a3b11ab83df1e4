"""Tokens per stage by source, like CrystalCoder's data_split.png, with epochs, counts and FIM."""

from __future__ import annotations

from dataclasses import dataclass

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
    linked,
    text_width,
    ticks,
)
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import passes, percent, round_number, short
from headrace.report.palette import hue

EDGE, BAR = 14, 30  # half the width of the axis numbers fits in the margin


@dataclass(frozen=True)
class SplitSource:
    """What a stage takes from a source: tokens, passes over its slice, and the share rearranged for infilling."""

    name: str
    tokens: int
    epochs: float
    fim: float = 0.0
    slice: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class SplitStage:
    """A stage, its sources, and where a click on it leads."""

    name: str
    sources: list[SplitSource]
    href: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of all sources."""
        return sum(source.tokens for source in self.sources)


def split_chart(stages: list[SplitStage], sources: list[str], width: float = WIDTH, name: str = "split") -> Chart:
    """Draw one bar per stage, with lengths proportional to tokens.

    Args:
        stages: in training order.
        sources: all sources, in the order of their colors.
        width: the chart's width.
        name: unique within the document; names the hatching.
    """
    longest = max((stage.tokens for stage in stages), default=0) or 1
    span = width - 2 * EDGE
    scale = span / longest
    hatch = element(
        "pattern",
        line(0, 0, 0, 6, "hatch"),
        id=f"{name}-hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    hatched = f"url(#{name}-hatch)"
    parts: list[Markup] = [element("defs", hatch)]
    y = 2.0
    for stage in stages:
        tokens = f"{short(stage.tokens)} tokens"
        said = label(fitted(stage.name, span - text_width(tokens) - 12, BOLD), EDGE, y + 12, "strong")
        parts.append(linked(said, stage.href))
        parts.append(label(tokens, width - EDGE, y + 12, "end muted"))
        y += 18
        parts.append(linked(join(_bar(stage, sources, scale, y, hatched)), stage.href))
        entries = [Entry(_said(source, stage), f"fill {hue(sources.index(source.name))}") for source in stage.sources]
        legend, tall = flow(entries, EDGE, y + BAR + 18, span)
        parts.append(legend)
        y += BAR + tall + 20
    for tick in ticks(0, longest, round(width / 110)):
        x = EDGE + scale * tick
        parts += [line(x, y, x, y + 5, "axis"), label(round_number(tick), x, y + 18, "middle muted")]
    parts += [
        line(EDGE, y, width - EDGE, y, "axis"),
        label("tokens", width / 2, y + 34, "middle muted"),
    ]
    if any(source.fim for stage in stages for source in stage.sources):
        first = next(source.name for stage in stages for source in stage.sources if source.fim)
        swatch = [box(-6, -6, 12, 12, f"fill {hue(sources.index(first))}"), box(-6, -6, 12, 12, "", fill=hatched)]
        note = "hatched: tokens of documents rearranged for fill-in-the-middle (FIM)"
        legend, tall = flow([Entry(note, drawn=join(swatch))], EDGE, y + 60, span)
        parts.append(legend)
        y += tall + 8
    title = "Tokens by stage and source"
    return Chart(title, _description(stages), width, y + 42, join(parts))


def _bar(stage: SplitStage, sources: list[str], scale: float, y: float, hatched: str) -> list[Markup]:
    parts: list[Markup] = []
    x = float(EDGE)
    for source in stage.sources:
        width = scale * source.tokens
        tip = element("title", _said(source, stage))
        drawn = [box(x, y, width, BAR, f"fill {hue(sources.index(source.name))}")]
        if source.fim:
            fim = width * source.fim
            drawn.append(box(x + width - fim, y, fim, BAR, "", fill=hatched))
        if x > EDGE:
            drawn.append(line(x, y, x, y + BAR, "gap"))
        parts.append(element("g", tip, drawn))
        x += width
    return parts


def _said(source: SplitSource, stage: SplitStage) -> str:
    said = f"{source.name}  {short(source.tokens)} · {percent(source.tokens, stage.tokens)}"
    said += f" · {passes(source.epochs, source.slice)}"
    if source.fim:
        said += f" · FIM {percent(source.fim, 1)}"
    return said


def _description(stages: list[SplitStage]) -> str:
    return " ".join(
        f"{stage.name}, {short(stage.tokens)} tokens: "
        + "; ".join(_said(source, stage) for source in stage.sources)
        + "."
        for stage in stages
    )
