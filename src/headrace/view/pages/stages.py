"""All stages: tokens by stage and source, the ledger, and the loss through the whole training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from headrace.errors import UserError
from headrace.report.charts.loss import LossStage, loss_chart
from headrace.report.charts.split import SplitSource, SplitStage, split_chart
from headrace.report.facts import StageFacts
from headrace.report.markup import Markup, element, join
from headrace.report.sections.stages import groups_table, ledger_table, overview_table
from headrace.report.stage_facts import fim_shares, ledger_facts
from headrace.report.tables import both, figure
from headrace.view.address import address
from headrace.view.damaged import telling_damage
from headrace.view.layout import empty, pending
from headrace.view.page import Page, Query
from headrace.view.target import Target


@dataclass(frozen=True)
class Trained:
    """How far a stage's training is: its steps and tokens so far, and its loss at each."""

    stage: str
    steps: int
    tokens: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Stages:
    """What the page shows.

    Attributes:
        names: sources in the order of their colors.
        stages: what each stage holds.
        counting: whether shares of fill-in-the-middle are still being counted.
        waiting: stages without a sequence yet.
        trained: stages that were or are being trained.
        damaged: stages whose sequence cannot be read, and why.
    """

    names: list[str]
    stages: list[StageFacts]
    counting: bool
    waiting: list[str]
    trained: list[Trained]
    damaged: dict[str, str]


def facts_of(target: Target, stage: str) -> tuple[StageFacts, bool] | None:
    """What a stage holds, and whether its shares of fill-in-the-middle are counted; None before its sequence is
    built."""
    made = target.artifact("sequence", stage)
    if made is None or "ledger" not in made.manifest.extra:
        return None
    facts = ledger_facts(made, target.batch(stage))
    if not any(source.fim_psm or source.fim_spm for source in facts.sources):
        return facts, True
    fim = target.later(("fim", made.path.name), lambda: fim_shares(made))
    told = {} if fim is None else fim
    sources = [replace(source, fim=told.get(source.name, 0.0)) for source in facts.sources]
    return replace(facts, sources=sources), fim is not None


def load(target: Target, query: Query) -> Stages:
    """Read manifests and logs. A sequence that is damaged hides only itself."""
    found: dict[str, tuple[StageFacts, bool] | None] = {}
    damaged: dict[str, str] = {}
    for stage in target.recipe.stages:
        try:
            with telling_damage(target):
                found[stage.name] = facts_of(target, stage.name)
        except UserError as error:
            damaged[stage.name] = f"{error.what} {error.where}"
    trained = []
    for name in (stage.name for stage in target.recipe.stages):
        curves = target.curves(name)
        if curves is not None and len(curves.step):
            trained.append(Trained(name, int(curves.step[-1]), curves.values["tokens"], curves.values["loss"]))
    return Stages(
        target.sources,
        [pair[0] for pair in found.values() if pair is not None],
        any(pair is not None and not pair[1] for pair in found.values()),
        [name for name, pair in found.items() if pair is None],
        trained,
        damaged,
    )


def draw(query: Query, shown: Stages) -> Markup:
    """The page."""
    wrong = [element("p", element("strong", name), ": ", said, class_="error") for name, said in shown.damaged.items()]
    if not shown.stages:
        return join(wrong or empty("No sequence is built yet."))
    split = [
        SplitStage(
            stage.name,
            [SplitSource(s.name, s.tokens, s.epochs, s.fim, s.slice) for s in stage.sources],
            address("stage", stage=stage.name),
        )
        for stage in shown.stages
    ]
    drawn = both(lambda width, name: split_chart(split, shown.names, width, name), "split")
    waiting = f"Not built yet: {', '.join(shown.waiting)}." if shown.waiting else None
    return join(
        [
            wrong,
            pending("Counting tokens in fill-in-the-middle order …") if shown.counting else None,
            figure("Tokens by stage and source", drawn),
            element("p", waiting, class_="note") if waiting else None,
            _loss(shown),
            element("h2", "Rows"),
            overview_table(shown.stages, lambda name: element("a", name, href=address("stage", stage=name))),
            element("h2", "The ledger"),
            ledger_table(shown.stages, shown.names),
            groups_table(shown.stages, shown.names),
        ]
    )


def _loss(shown: Stages) -> Markup | None:
    placed, start = [], 0.0
    for one in shown.trained:
        end = start + float(one.tokens[-1])
        placed.append(LossStage(one.stage, start + one.tokens, one.loss, start, end, {}))
        start = end
    if not any(np.isfinite(stage.loss).any() for stage in placed):
        return None
    links = element(
        "p",
        "Open a stage to see its steps: ",
        [[", " if i else "", element("a", s.name, href=address("stage", stage=s.name))] for i, s in enumerate(placed)],
    )
    drawn = both(lambda width, _: loss_chart(placed, shown.names, width=width), "loss")
    return join([element("h2", "Training"), figure("Loss through the stages", drawn), links])


PAGE = Page(
    about="Tokens by stage and source, epochs, fill-in-the-middle as measured, and the loss through all stages.",
    query=Query,
    load=load,
    draw=draw,
    heading=lambda query, shown: "Stages",
)
