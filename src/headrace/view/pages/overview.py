"""The run at a glance: where documents and tokens went, what is underway, and what deserves a look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headrace.report.charts.sankey import Flow, Node, sankey_chart
from headrace.report.corpus_facts import sources_read
from headrace.report.departures import departures
from headrace.report.facts import SourceFacts, StageFacts, removed_by_reason
from headrace.report.gather import declared
from headrace.report.licence_facts import licence_facts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, short, whole
from headrace.report.palette import hue, texture
from headrace.report.stage_facts import ledger_facts
from headrace.report.tables import both, figure
from headrace.report.warnings import Warned, warnings
from headrace.view.address import address
from headrace.view.layout import empty, pending
from headrace.view.page import Page, Query
from headrace.view.pages.progress import Progress, draw_progress, load_progress
from headrace.view.quarantine import QUARANTINED
from headrace.view.target import Target


@dataclass(frozen=True)
class Overview:
    """What the page shows.

    Attributes:
        recipe: the recipe's name.
        names: sources in the order of their colors.
        sources: what happened to each source's records.
        stages: what each stage holds.
        warnings: what deserves a look.
        departures: where the run departs from what the recipe expects.
        counting: whether licenses are still being counted.
        progress: the state of each artifact.
    """

    recipe: str
    names: list[str]
    sources: list[SourceFacts]
    stages: list[StageFacts]
    warnings: list[Warned]
    departures: list[str]
    counting: bool
    progress: Progress


def load(target: Target, query: Query) -> Overview:
    """Read manifests; licenses are counted in the background."""
    recipe, documents = target.recipe, target.documents
    verdicts, tokens = target.artifact("verdicts"), target.artifact("tokens")
    sources = sources_read(documents, verdicts, tokens, recipe.sources) if documents else []
    stages = [
        ledger_facts(made, target.batch(stage.name))
        for stage in recipe.stages
        if (made := target.artifact("sequence", stage.name)) is not None and "ledger" in made.manifest.extra
    ]
    licences: Any = []
    if documents is not None and verdicts is not None:
        about = documents, verdicts, tokens, target.artifact("licences"), declared(recipe)
        licences = target.later("licences", lambda: licence_facts(*about))
    return Overview(
        recipe.name,
        target.sources,
        sources,
        stages,
        warnings(sources, stages, licences),
        departures(recipe, sources),
        licences is None,
        load_progress(target),
    )


def draw(query: Query, shown: Overview) -> Markup:
    """The page."""
    return join(
        [
            element("div", draw_progress(shown.progress), data_live="/progress", class_="live"),
            _tiles(shown),
            _warnings(shown),
            _documents(shown),
            _tokens(shown),
        ]
    )


def _tiles(shown: Overview) -> Markup | None:
    if not shown.sources:
        return None
    read, kept = sum(s.read for s in shown.sources), [s.kept for s in shown.sources if s.kept is not None]
    tiles: list[tuple[str, str, str, str | None]] = [
        ("records read", whole(read), counted(len(shown.sources), "source"), address("documents"))
    ]
    if kept:
        gone = sum(n for s in shown.sources for n in s.removed.values())
        tiles.append(("documents kept", whole(sum(kept)), f"{percent(sum(kept), read)} of what was read", None))
        tiles.append(("removed", whole(gone), "see why", address("removed")))
    if shown.stages:
        tokens = sum(stage.tokens for stage in shown.stages)
        tiles.append(("tokens in sequences", short(tokens), counted(len(shown.stages), "stage"), address("stages")))
    drawn = [
        element(
            "div",
            element("dt", name),
            element("dd", value, element("small", element("a", note, href=href) if href else note)),
            class_="tile",
        )
        for name, value, note, href in tiles
    ]
    return element("dl", drawn, class_="tiles")


def _warnings(shown: Overview) -> Markup:
    told = [element("li", element("strong", _about(one)), " ", one.said) for one in shown.warnings]
    told += [element("li", said) for said in shown.departures]
    waiting = pending("Counting licenses …") if shown.counting else None
    if not told:
        return join(waiting)
    return element("section", element("h2", "Worth a look"), element("ul", told, class_="warnings"), waiting)


def _about(one: Warned) -> Markup:
    parts = []
    if one.stage is not None:
        parts.append(element("a", one.stage, href=address("stage", stage=one.stage)))
    if one.source is not None:
        href = address("removed", source=one.source) if one.kind == "lost" else address("corpus", source=one.source)
        parts.append(element("a", one.source, href=href))
    return join([part if i == 0 else [", ", part] for i, part in enumerate(parts)])


def _documents(shown: Overview) -> Markup:
    if not shown.sources:
        return element("section", element("h2", "Documents"), empty("No documents yet."))
    reasons = list(removed_by_reason(shown.sources))
    flows: list[Flow] = []
    for s in shown.sources:
        if s.kept is None:
            flows.append(Flow(s.name, "read", s.documents, address("documents", source=s.name)))
        else:
            flows.append(Flow(s.name, "kept", s.kept, address("documents", source=s.name, kept="yes")))
        flows += [Flow(s.name, r, n, address("removed", reason=r, source=s.name)) for r, n in s.removed.items()]
        unread = address("removed", reason=QUARANTINED, source=s.name)
        flows += [Flow(s.name, QUARANTINED, s.quarantined, unread), Flow(s.name, "empty", s.skipped)]
    left = [Node(s.name, f"fill {_hue(shown, s.name)}", address("corpus", source=s.name)) for s in shown.sources]
    right = [Node("kept", "kept", address("documents", kept="yes")), Node("read", "kept", address("documents"))]
    right += [Node(r, f"fill {texture(i)}", address("removed", reason=r)) for i, r in enumerate(reasons)]
    right += [Node(QUARANTINED, "quarantined", address("removed", reason=QUARANTINED)), Node("empty", "quarantined")]
    drawn = both(
        lambda width, _: sankey_chart(
            "Records by source and what became of them", left, right, flows, lambda n: whole(n), width
        ),
        "documents",
    )
    return element("section", element("h2", "Documents"), figure("What became of each source's records", drawn))


def _tokens(shown: Overview) -> Markup:
    if not shown.stages:
        return element("section", element("h2", "Tokens"), empty("No sequences yet."))
    flows = [
        Flow(s.name, stage.name, s.tokens, address("sequence", stage=stage.name))
        for stage in shown.stages
        for s in stage.sources
    ]
    left = [Node(name, f"fill {_hue(shown, name)}", address("corpus", source=name)) for name in shown.names]
    right = [Node(stage.name, "kept", address("stage", stage=stage.name)) for stage in shown.stages]
    drawn = both(
        lambda width, _: sankey_chart("Tokens by source and stage", left, right, flows, short, width), "tokens"
    )
    return element("section", element("h2", "Tokens"), figure("Tokens of each source in each stage's sequence", drawn))


def _hue(shown: Overview, name: str) -> str:
    return hue(shown.names.index(name)) if name in shown.names else "kept"


PAGE = Page(
    about="The flow of documents and tokens through a run, its progress, and warnings.",
    query=Query,
    load=load,
    draw=draw,
    heading=lambda query, shown: str(shown.recipe),
)
