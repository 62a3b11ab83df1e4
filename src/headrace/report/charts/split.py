"""The tokens of each stage by source: what CrystalCoder's data_split.png tells, with epochs, counts and FIM."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.report.charts.canvas import WIDTH, Chart, Entry, box, fitted, flow, label, line, ticks
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import passes, percent, round_number, short
from headrace.report.palette import hue

LEFT, RIGHT, BAR = 118, 24, 30


@dataclass(frozen=True)
class SplitSource:
    """What a stage takes of a source: tokens, passes over its slice, and the share rearranged for infilling."""

    name: str
    tokens: int
    epochs: float
    fim: float = 0.0
    slice: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class SplitStage:
    """A stage and its sources."""

    name: str
    sources: list[SplitSource]

    @property
    def tokens(self) -> int:
        """Tokens of all sources."""
        return sum(source.tokens for source in self.sources)


def split_chart(stages: list[SplitStage], sources: list[str]) -> Chart:
    """Draw one bar a stage, as long as its tokens.

    Args:
        stages: in training order.
        sources: all sources in the order that gives them their colours.
    """
    longest = max((stage.tokens for stage in stages), default=0) or 1
    scale = (WIDTH - LEFT - RIGHT) / longest
    hatch = element(
        "pattern",
        line(0, 0, 0, 6, "hatch"),
        id="fim-hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    )
    parts: list[Markup] = [element("defs", hatch)]
    y = 8.0
    for stage in stages:
        parts.append(label(fitted(stage.name, LEFT - 16), LEFT - 12, y + 13, "end strong"))
        parts.append(label(f"{short(stage.tokens)} tokens", LEFT - 12, y + 28, "end muted"))
        parts += _bar(stage, sources, scale, y)
        entries = [Entry(_said(source, stage), f"fill {hue(sources.index(source.name))}") for source in stage.sources]
        legend, tall = flow(entries, LEFT, y + BAR + 18, WIDTH - LEFT - RIGHT)
        parts.append(legend)
        y += BAR + tall + 20
    for tick in ticks(0, longest, 8):
        x = LEFT + scale * tick
        parts += [line(x, y, x, y + 5, "axis"), label(round_number(tick), x, y + 18, "middle muted")]
    parts += [
        line(LEFT, y, WIDTH - RIGHT, y, "axis"),
        label("tokens", (LEFT + WIDTH - RIGHT) / 2, y + 34, "middle muted"),
    ]
    if any(source.fim for stage in stages for source in stage.sources):
        key = join([box(0, y + 24, 22, 12, "fill c7"), box(0, y + 24, 22, 12, "", fill="url(#fim-hatch)")])
        note = "hatched: tokens of documents rearranged for fill-in-the-middle (FIM)"
        parts += [element("g", key, transform=f"translate({LEFT} 26)"), label(note, LEFT + 30, y + 60)]
        y += 26
    title = "Tokens by stage and source"
    return Chart(title, _description(stages), y + 42, join(parts))


def _bar(stage: SplitStage, sources: list[str], scale: float, y: float) -> list[Markup]:
    parts: list[Markup] = []
    x = float(LEFT)
    for source in stage.sources:
        width = scale * source.tokens
        tip = element("title", _said(source, stage))
        drawn = [box(x, y, width, BAR, f"fill {hue(sources.index(source.name))}")]
        if source.fim:
            fim = width * source.fim
            drawn.append(box(x + width - fim, y, fim, BAR, "", fill="url(#fim-hatch)"))
        if x > LEFT:
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
