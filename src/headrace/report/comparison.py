"""What variants of a recipe come to over several seeds: estimates with intervals, as a table, a page and JSON."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.report.charts.canvas import Chart
from headrace.report.charts.intervals import Interval, IntervalPanel, interval_chart
from headrace.report.markup import Markup, element
from headrace.report.page import document
from headrace.report.tables import Column, both, figure, table, text

# Student's t at 97.5 % for 1, 2, ... degrees of freedom; the normal distribution's beyond.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, and half of its 95 % interval (Student's t), which one seed does not have."""

    mean: float
    half: float | None

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half is not None and abs(self.mean) > self.half

    def __str__(self) -> str:
        return f"{self.mean:.4g}" + ("" if self.half is None else f" ± {self.half:.2g}")


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of float[n] and its interval."""
    count = len(values)
    if count == 1:
        return Estimate(values[0], None)
    t = T[count - 2] if count - 2 < len(T) else statistics.NormalDist().inv_cdf(0.975)
    return Estimate(statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(count))


@dataclass(frozen=True)
class Variant:
    """A variant of a recipe.

    Attributes:
        name: what differs in it.
        settings: its overrides, ``key=value``.
        values: measure -> its value at each seed, in the seeds' order.
        held_out: a name for the held-out rows that each seed measured on; losses of unlike rows are not comparable.
    """

    name: str
    settings: tuple[str, ...]
    values: Mapping[str, Sequence[float]]
    held_out: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Variants, of which the first is what the others are compared with.

    Attributes:
        recipe: the recipe's name.
        stage: the stage whose model was measured.
        seeds: the seeds.
        variants: the variants; all have the same measures.
        left_out: synthetic sources of the recipe that its runs do without.
    """

    recipe: str
    stage: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]
    left_out: tuple[str, ...] = ()

    @property
    def measures(self) -> list[str]:
        """What was measured of every variant, in the order of the first."""
        first, *others = self.variants
        return [name for name in first.values if all(name in other.values for other in others)]

    def estimate(self, variant: Variant, measure: str) -> Estimate:
        """A variant's mean."""
        return estimate(variant.values[measure])

    def difference(self, variant: Variant, measure: str) -> Estimate:
        """How much more than the first it is, seed by seed."""
        pairs = zip(variant.values[measure], self.variants[0].values[measure], strict=True)
        return estimate([mine - first for mine, first in pairs])

    @property
    def notes(self) -> list[str]:
        """What a reader must know."""
        said = []
        for variant in self.variants[1:]:
            if variant.held_out != self.variants[0].held_out:
                said.append(
                    f"{variant.name} was measured on other held-out documents than {self.variants[0].name}, so their "
                    "losses are not comparable: what it varies decides which documents are kept."
                )
        if self.left_out:
            said.append(
                f"The runs are without what a language model writes for later stages: {', '.join(self.left_out)}. The "
                "tokenizer and the held-out rows know none of it, so losses differ a little from the full recipe's."
            )
        if len(self.seeds) == 1:
            said.append("With one seed there are no intervals, and differences may be chance.")
        return said

    def to_json(self) -> dict[str, Any]:
        """Everything, with estimates and differences."""

        def told(one: Estimate) -> dict[str, Any]:
            return {"mean": one.mean, "half_interval": one.half}

        return {
            "recipe": self.recipe,
            "stage": self.stage,
            "seeds": list(self.seeds),
            "variants": [
                {
                    "name": variant.name,
                    "settings": list(variant.settings),
                    "measures": {
                        name: {
                            "values": list(variant.values[name]),
                            **told(self.estimate(variant, name)),
                            "difference": None if variant is self.variants[0] else told(self.difference(variant, name)),
                        }
                        for name in self.measures
                    },
                }
                for variant in self.variants
            ],
            "notes": self.notes,
        }


def comparison_lines(compared: Comparison) -> list[str]:
    """The comparison for a terminal: for each measure a line for each variant."""
    wide = max(len(variant.name) for variant in compared.variants)
    seeds = f"{len(compared.seeds)} seed{'s' * (len(compared.seeds) != 1)}"
    lines = [f"{compared.recipe}, {compared.stage}, {seeds}; differences are from {compared.variants[0].name}"]
    for name in compared.measures:
        lines += ["", name]
        for variant in compared.variants:
            line = f"  {variant.name:<{wide}}  {compared.estimate(variant, name)!s:<18}"
            if variant is not compared.variants[0]:
                apart = compared.difference(variant, name)
                line += f"{apart.mean:+.3g}" + ("" if apart.half is None else f" ± {apart.half:.2g}")
                line += "" if apart.half is None or apart.clear else "  (may be chance)"
            lines.append(line.rstrip())
    return [*lines, *(f"\nNote: {note}" for note in compared.notes)]


def comparison_page(compared: Comparison) -> str:
    """The comparison as one self-contained page."""
    first = compared.variants[0]
    columns = [text("variant"), *(Column(name) for name in compared.measures)]
    rows = [[v.name, *(str(compared.estimate(v, name)) for name in compared.measures)] for v in compared.variants]
    apart = [
        [v.name, *(_signed(compared.difference(v, name)) for name in compared.measures)] for v in compared.variants[1:]
    ]
    settings = [[v.name, ", ".join(v.settings) or "as the recipe says"] for v in compared.variants]
    seeds = ", ".join(map(str, compared.seeds))
    intervals = "Dots are means over seeds, with intervals of 95 % (Student's t); ticks are single seeds."

    def draw(width: float, _: str) -> Chart:
        return interval_chart("Measures by variant", intervals, _panels(compared), width)

    body: list[Markup | None] = [
        element("ul", [element("li", note) for note in compared.notes]) if compared.notes else None,
        figure(intervals, both(draw, "measures")),
        table(columns, rows, "Means over seeds"),
        table(columns, apart, f"Differences from {first.name}, seed by seed; * where the interval leaves out zero")
        if apart
        else None,
        table([text("variant"), text("settings")], settings, "Variants"),
    ]
    lead = f"{len(compared.variants)} variants, seeds {seeds}, measured after stage {compared.stage}."
    return document(
        f"{compared.recipe}: variants",
        element("header", element("h1", f"{compared.recipe}: variants"), element("p", lead, class_="lead")),
        element("main", element("section", [part for part in body if part is not None])),
        element("footer", "Built by headrace. Every figure was measured in these runs."),
    )


def _signed(one: Estimate) -> str:
    half = "" if one.half is None else f" ± {one.half:.2g}"
    return f"{one.mean:+.3g}{half}{' *' if one.clear else ''}"


def _panels(compared: Comparison) -> list[IntervalPanel]:
    panels = []
    for name in compared.measures:
        rows = []
        for variant in compared.variants:
            found = compared.estimate(variant, name)
            rows.append(Interval(variant.name, variant.values[name], found.mean, found.half))
        panels.append(IntervalPanel(name, rows))
    return panels
