"""The report of a run: one self-contained page that loads nothing from the network and runs no scripts."""

from __future__ import annotations

from headrace.report import palette
from headrace.report.facts import RunFacts
from headrace.report.found_counts import cells
from headrace.report.markup import Markup, element
from headrace.report.numbers import counted, duration, percent, short, whole
from headrace.report.sections.corpus import splits, went_in
from headrace.report.sections.long_texts import long_texts
from headrace.report.sections.quality import quality
from headrace.report.sections.removed import lengths, removed
from headrace.report.sections.stages import stages
from headrace.report.sections.training import samples, training
from headrace.report.sections.work import work
from headrace.report.style import style
from headrace.report.tables import Column, details, table, text

# Nothing may be loaded and nothing may run, whatever a corpus contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(facts: RunFacts) -> str:
    """The whole page as HTML."""
    sections = [
        ("sources", "Input", went_in(facts)),
        ("departures", "Departures from expectations", _departures(facts)),
        ("counts", "Expected counts", _counts(facts)),
        ("removed", "What was removed, and why", removed(facts)),
        ("quality", "Quality", quality(facts)),
        ("lengths", "Lengths before and after cleaning", lengths(facts)),
        ("splits", "Splits", splits(facts)),
        ("stages", "Stages", stages(facts)),
        ("training", "Training", training(facts)),
        ("long", "Long texts", long_texts(facts)),
        ("samples", "Samples", samples(facts)),
        ("work", "Time and memory", work(facts)),
        ("recipe", "Recipe", details("Resolved recipe", element("pre", facts.recipe, class_="text"))),
    ]
    present = [(name, title, body) for name, title, body in sections if body is not None]
    nav = element("nav", [element("a", title, href=f"#{name}") for name, title, _ in present], aria_label="Sections")
    return document(
        f"{facts.name}: report",
        element("header", element("h1", facts.name), element("p", _lead(facts), class_="lead"), _tiles(facts), nav),
        element("main", [element("section", element("h2", title), part, id=name) for name, title, part in present]),
        element(
            "footer",
            f"Built by headrace from {facts.run}. Every figure was measured in this run or is labeled an estimate.",
        ),
    )


def document(title: str, *parts: Markup) -> str:
    """A page in the report's design that needs no other file, as HTML.

    Args:
        title: the window's title.
        parts: header, main and footer.
    """
    fills = element("svg", palette.textures(), class_="unseen", width=0, height=0, aria_hidden="true")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", style()),
    )
    return f"<!doctype html>\n{element('html', head, element('body', fills, parts), lang='en')}\n"


def _departures(facts: RunFacts) -> Markup | None:
    return element("ul", [element("li", said) for said in facts.departures]) if facts.departures else None


def _counts(facts: RunFacts) -> Markup | None:
    if not facts.counts:
        return None
    (source, what, *numbers), *rows = cells(facts.counts)
    return table([text(source), text(what), *map(Column, numbers)], rows)


def _lead(facts: RunFacts) -> str:
    parts = [counted(len(facts.sources), "source")]
    if facts.stages:
        parts.append(counted(len(facts.stages), "stage"))
    if facts.vocabulary:
        parts.append(f"a vocabulary of {whole(facts.vocabulary)} tokens")
    parameters = next((s.training.parameters for s in facts.stages if s.training and s.training.parameters), None)
    if parameters:
        parts.append(f"a model of {short(parameters)} parameters")
    return ", ".join(parts) + "."


def _tiles(facts: RunFacts) -> Markup:
    read = sum(source.read for source in facts.sources)
    tiles: list[tuple[str, str, str]] = [("records read", whole(read), f"{whole(facts.documents)} documents")]
    if facts.kept is not None:
        gone = ", ".join(f"{reason} {whole(n)}" for reason, n in list(facts.removed.items())[:2])
        tiles.append(("kept", whole(facts.kept), f"{percent(facts.kept, read)}; {gone}" if gone else ""))
    if facts.stages:
        tokens = sum(stage.tokens for stage in facts.stages)
        tiles.append(("tokens in the sequences", short(tokens), counted(len(facts.stages), "stage")))
    trained = [stage.training for stage in facts.stages if stage.training]
    if trained:
        steps = sum(t.steps for t in trained)
        tiles.append(("tokens trained on", short(sum(t.tokens for t in trained)), counted(steps, "step")))
        first, last = trained[0].first, trained[-1].last
        if first is not None and last is not None:
            tiles.append(("training loss", f"{first:.2f} → {last:.2f}", "first step → end of last stage"))
    if facts.making is not None:
        tiles.append(("time", duration(facts.making), "to build all artifacts"))
    drawn = [
        element(
            "div", element("dt", name), element("dd", value, element("small", note) if note else None), class_="tile"
        )
        for name, value, note in tiles
    ]
    return element("dl", drawn, class_="tiles")
