"""Annotators: how well they tell good from random, what else could, how scores are spread, and what they keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.report.charts.square import square_chart
from headrace.report.facts import AnnotatorFacts, RunFacts, Tenth
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import percent, whole
from headrace.report.quality_warnings import learned_the_source
from headrace.report.tables import Column, details, figure, table, text
from headrace.select.quality.figures import auc_error


def quality(facts: RunFacts) -> Markup | None:
    """The section; None without annotators."""
    if not facts.quality:
        return None
    parts: list[Markup | None] = []
    for one in facts.quality:
        parts.append(element("h3", f"{one.name} ({one.kind})"))
        said = learned_the_source(one)
        parts.append(element("p", said, class_="warning") if said else None)
        if one.figures is not None:
            parts += [_separates(one, one.figures), _within(one.figures)]
        if one.spread is not None:
            parts += [_benchmarks(one.spread), _spread(one.spread, "source"), _spread(one.spread, "language")]
        parts += [_kept(one), _tenths(one.tenths)]
    return join(parts)


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _auc(value: float | None, held: Mapping[str, int]) -> str | None:
    return (
        None if value is None else f"{value:.3f} ± {1.96 * auc_error(value, held['positives'], held['negatives']):.3f}"
    )


def _separates(one: AnnotatorFacts, figures: Mapping[str, Any]) -> Markup:
    held = figures["held_out"]
    row = (
        one.name,
        whole(one.examples.get("positives", 0)),
        whole(one.examples.get("negatives", 0)),
        whole(held["positives"] + held["negatives"]),
        _auc(figures["auc"], held),
        _number(figures["f1"]),
        _number(figures["source_alone"]),
        _number(figures["rank_correlation_within"]),
    )
    names = ("positives", "negatives", "held out", "ROC AUC", "F1 at 0.5", "AUC of the source's name alone",
             "rank correlation within sources")  # fmt: skip
    caption = "Held-out examples; the AUC with its interval of 95 % (Hanley and McNeil 1982). "
    caption += "An annotator that the source's name matches may have learned only that."
    points = [(bin["said"], bin["positive"], f"{whole(bin['documents'])} examples") for bin in figures["reliability"]]
    charts = [
        figure(
            "Reliability: the share of positives among held-out examples, by score; on the diagonal scores are right",
            square_chart("Reliability", "score", "share of positives", points, diagonal=True).inline(
                f"reliability-{one.name}"
            ),
        )
    ]
    learned = [(point["examples"], point["auc"], "") for point in figures["curve"] if point["auc"] is not None]
    if len(learned) > 1:
        drawn = square_chart("Learning curve", "training examples", "ROC AUC", learned)
        charts.append(figure("Learning curve: whether more examples would help", drawn.inline(f"learning-{one.name}")))
    return join(
        [table([text("annotator"), *map(Column, names)], [row], caption), element("div", charts, class_="pair")]
    )


def _within(figures: Mapping[str, Any]) -> Markup | None:
    both = {name: told for name, told in figures["within"].items() if told["auc"] is not None}
    if not both:
        return None
    rows = [(name, whole(one["documents"]), whole(one["positives"]), _number(one["auc"])) for name, one in both.items()]
    columns = [text("source"), *map(Column, ("held out", "positives", "ROC AUC"))]
    return table(columns, rows, "Within sources that have both positives and negatives.")


def _benchmarks(spread: Mapping[str, Any]) -> Markup | None:
    found = spread["benchmarks"]
    if not found:
        return None
    rows = [(name, whole(one["items"]), _number(one["auc"]), _number(one["median"])) for name, one in found.items()]
    columns = [text("benchmark"), *map(Column, ("solutions", "ROC AUC", "median score"))]
    caption = "Solutions of benchmarks against documents of the corpus: the better told apart, the better pass@1 was "
    return table(columns, rows, caption + "in Arctic-SnowCoder (2409.02326).")


def _spread(spread: Mapping[str, Any], by: str) -> Markup | None:
    groups = spread[f"by_{by}"]
    if by == "language" and set(groups) <= {""}:
        return None
    rows = [
        (
            name or "not stated",
            whole(one["documents"]),
            _number(one["mean"]),
            _number(one["deviation"]),
            *map(_number, one["quantiles"]),
        )
        for name, one in groups.items()
    ]
    columns = [text(by), *map(Column, ("documents", "mean", "deviation", "5 %", "25 %", "median", "75 %", "95 %"))]
    between = spread["between_sources"]
    caption = f"Scores by {by}"
    if by == "source" and between is not None:
        caption += f"; {percent(between, 1)} of their variance lies between sources"
    if spread["without"]:
        caption += f". {whole(spread['without'])} documents have no score"
    return table(columns, rows, f"{caption}.")


def _kept(one: AnnotatorFacts) -> Markup | None:
    if not one.cuts:
        return None
    rows = [
        (
            cut["group"] or "all",
            whole(cut["documents"]),
            whole(cut["taken"]),
            percent(cut["reached"], cut["total"]),
            None if cut["cut"] is None else f"{cut['cut']:.4g}",
        )
        for cut in sorted(one.cuts, key=lambda cut: (-cut["documents"], cut["group"] or ""))
    ]
    columns = [text("ranked within"), *map(Column, ("documents", "kept", "share of the budget's unit", "lowest kept"))]
    return table(columns, rows, "What is kept by these scores, of the documents that nothing else removes.")


def _tenths(tenths: list[Tenth]) -> Markup | None:
    if not tenths:
        return None
    shown = []
    for k, tenth in reversed(list(enumerate(tenths, 1))):
        texts = [
            element(
                "div",
                element("p", f"{place.source} {place.origin}", class_="note"),
                element("pre", place.text, class_="text"),
            )
            for place in tenth.examples
        ]
        shown.append(details(f"Tenth {k}: scores {tenth.low:.4g} to {tenth.high:.4g}", *texts))
    return join([element("h4", "Documents to read, from the best tenth to the worst"), *shown])
