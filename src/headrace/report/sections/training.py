"""Training: loss through all stages, held-out loss before and after each, and text the model wrote."""

from __future__ import annotations

import numpy as np

from headrace.report.charts.loss import LossStage, loss_chart
from headrace.report.charts.series import Panel, Series, series_chart
from headrace.report.charts.series import Stage as Band
from headrace.report.facts import RunFacts, StageFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import duration, percent, short, whole
from headrace.report.palette import hue
from headrace.report.samples import Generated
from headrace.report.tables import Column, both, details, figure, key, table, text


def loss_stages(facts: RunFacts) -> list[LossStage]:
    """The trained stages in the form the chart takes, one after another on an axis of tokens."""
    placed = []
    start = 0.0
    for stage in facts.stages:
        trained = stage.training
        if trained is None or not (trained.loss or trained.held_out):
            continue
        per_step = trained.tokens / trained.steps if trained.steps else 0.0
        held = {
            name: [(start + step * per_step, loss) for step, loss in points]
            for name, points in trained.held_out.items()
        }
        x = start + np.array(trained.tokens_at, dtype=np.float64)
        end = start + trained.tokens
        placed.append(LossStage(stage.name, x, np.array(trained.loss, dtype=np.float64), start, end, held))
        start = end
    return placed


def training(facts: RunFacts) -> Markup | None:
    """The section, or None if nothing was trained."""
    placed = loss_stages(facts)
    if not placed:
        return None
    names = facts.names
    linear = both(lambda width, _: loss_chart(placed, names, width=width), "loss")
    logarithmic = both(lambda width, _: loss_chart(placed, names, log=True, width=width), "loss-log")
    switch = element(
        "div",
        element("input", type="radio", name="view", id="view-linear", checked=True),
        element("label", "linear", for_="view-linear"),
        element("input", type="radio", name="view", id="view-log"),
        element("label", "logarithmic", for_="view-log"),
        element("div", linear, class_="view linear"),
        element("div", logarithmic, class_="view log"),
        class_="switch",
    )
    return join(
        [
            figure("Loss through the stages", switch),
            _stages(facts),
            _held_out(facts, names),
            _infilling(facts),
            _panels(facts),
        ]
    )


def panels(facts: RunFacts) -> tuple[list[Band], list[Panel]]:
    """The stages, and what is drawn over them besides the mean loss; panels without values are left out."""
    placed, drawn = [], {name: Panel(name, unit, [], marked="step that changed no weights", log=log, zero=zero)
                         for name, unit, log, zero in PANELS}  # fmt: skip
    start = 0.0
    for stage in _trained(facts):
        trained = stage.training
        assert trained is not None
        placed.append(Band(stage.name, start, start + trained.tokens))
        x = start + np.array(trained.tokens_at, dtype=np.float64)
        for name, losses in trained.by_source.items():
            index = facts.names.index(name) if name in facts.names else 0
            drawn["Loss by source"].series.append(
                Series(name, f"series {hue(index)}", x, np.array(losses), smooth=True)
            )
        norms = np.array(trained.grad_norm)
        for title, name, values in (
            ("Learning rate", "learning rate", trained.learning_rate),
            ("Gradient norm", "gradient norm, before clipping", trained.grad_norm),
            ("Throughput", "tokens per second", trained.tokens_per_second),
            ("Waiting for data", "share of a step's time", [100 * share for share in trained.waited]),
        ):
            if len(values) == len(x) and np.isfinite(values).any():
                drawn[title].series.append(Series(name, "smooth", x, np.array(values, dtype=np.float64)))
        drawn["Gradient norm"].marks.extend(
            (float(x[i]), float(norms[i]), f"{stage.name}, step {trained.step[i]}: {why}")
            for i, why in enumerate(trained.skipped_at)
            if why not in (None, "left out", "no targets")
        )
        start += trained.tokens
    return placed, [panel for panel in drawn.values() if panel.series]


PANELS = (
    ("Loss by source", "nats per token", False, False),
    ("Learning rate", "rate", False, True),
    ("Gradient norm", "norm", True, False),
    ("Throughput", "tokens per second", False, True),
    ("Waiting for data", "% of the step", False, True),
)
"""Title, unit, whether the axis is logarithmic, and whether it begins at 0."""


def _panels(facts: RunFacts) -> Markup | None:
    placed, drawn = panels(facts)

    def chart(panel: Panel) -> Markup:
        return both(lambda width, _: series_chart(panel, placed, width), panel.title.lower().replace(" ", "-"))

    return join([figure(panel.title, chart(panel)) for panel in drawn])


def _trained(facts: RunFacts) -> list[StageFacts]:
    return [stage for stage in facts.stages if stage.training is not None]


def _loss(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _stages(facts: RunFacts) -> Markup:
    columns = [
        text("stage"),
        *map(
            Column,
            ("steps", "tokens", "with loss", "loss, first step", "loss, last tenth", "time", "tokens per second"),
        ),
    ]
    rows = []
    for stage in _trained(facts):
        trained = stage.training
        assert trained is not None
        rate = trained.tokens / trained.seconds if trained.seconds else None
        rows.append(
            (
                stage.name,
                whole(trained.steps) + (f" ({trained.skipped} skipped)" if trained.skipped else ""),
                whole(trained.tokens),
                percent(trained.loss_tokens, trained.tokens),
                _loss(trained.first),
                _loss(trained.last),
                None if trained.seconds is None else duration(trained.seconds),
                None if rate is None else short(rate),
            )
        )
    return table(
        columns, rows, "Training loss in nats per token: the first logged step, and the mean of the last tenth."
    )


def _held_out(facts: RunFacts, names: list[str]) -> Markup | None:
    stages = [stage for stage in _trained(facts) if stage.training and stage.training.held_out]
    if not stages:
        return None
    seen = [name for name in names if any(stage.training and name in stage.training.held_out for stage in stages)]
    columns = [text("source"), *(Column(f"{stage.name}: start → end") for stage in stages)]
    rows = []
    for name in seen:
        cells: list[object] = []
        for stage in stages:
            points = stage.training.held_out.get(name, []) if stage.training else []
            cells.append(f"{points[0][1]:.3f} → {points[-1][1]:.3f}" if len(points) > 1 else _only(points))
        rows.append((key(name, names.index(name)), *cells))
    caption = "Loss on held-out documents of each source, nats per token, before and after each stage."
    return join([element("h3", "Held-out loss by source"), table(columns, rows, caption)])


def _infilling(facts: RunFacts) -> Markup | None:
    stages = [(stage.name, stage.training.infilling) for stage in _trained(facts) if stage.training]
    stages = [(name, told) for name, told in stages if told]
    if not stages:
        return None
    columns = [text("taken out"), *(Column(name) for name, _ in stages)]
    what = {"line": "a line", "span": "a span of characters"}
    rows = [
        (label, *(f"{told[kind][0]} of {told[kind][1]}" if kind in told else None for _, told in stages))
        for kind, label in what.items()
    ]
    caption = (
        "How often the model wrote exactly what was taken out of held-out documents, given what is before and after."
    )
    return join([element("h3", "Infilling of held-out code"), table(columns, rows, caption)])


def _only(points: list[tuple[int, float]]) -> str | None:
    return f"{points[0][1]:.3f}" if points else None


def samples(facts: RunFacts) -> Markup | None:
    """Text the model wrote after each stage."""
    written = [
        (stage, stage.training.samples) for stage in _trained(facts) if stage.training and stage.training.samples
    ]
    if not written:
        return None
    note = "Generated text is shaded. For infilling, the model sees the text before and after the hole."
    last = len(written) - 1
    return join(
        [
            element("p", note),
            [details(f"after {stage.name}", [_generated(s) for s in some], open_=i == last)
             for i, (stage, some) in enumerate(written)],
        ]
    )  # fmt: skip


def _generated(sample: Generated) -> Markup:
    what = "infilling" if sample.suffix is not None else "continuation"
    if sample.source is not None:
        what += f" of a held-out document of {sample.source}"
    truth = None
    if sample.truth is not None:
        truth = element("p", "in the document: ", element("code", sample.truth), class_="where")
    return element(
        "article",
        element("p", what, class_="where"),
        element(
            "pre",
            element("span", sample.prompt, class_="dim"),
            element("span", sample.text, class_="filled"),
            element("span", sample.suffix, class_="dim") if sample.suffix else None,
            class_="text",
        ),
        truth,
    )
