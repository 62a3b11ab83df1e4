"""What was removed and why: shares by reason, copies within and between sources, examples with evidence."""

from __future__ import annotations

from headrace.report.charts.lengths import Lengths, lengths_chart
from headrace.report.charts.matrix import heat_table
from headrace.report.charts.removal import RemovalBar, removal_chart
from headrace.report.facts import Example, Place, RunFacts
from headrace.report.hits import draw_hits
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, short, whole
from headrace.report.tables import Column, both, details, figure, key, table, text


def removed(facts: RunFacts) -> Markup | None:
    """The section, or None before the verdicts."""
    if facts.kept is None:
        return None
    bars = [RemovalBar(s.name, s.kept, s.removed, s.quarantined) for s in facts.sources if s.kept is not None]
    drawn = both(lambda width, _: removal_chart(bars, list(facts.removed), width), "removal")
    parts = [
        figure("Documents kept and removed, by source", drawn),
        _table(facts),
        _tokens(facts),
        _duplicates(facts),
        _holdout(facts),
        _references(facts),
    ]
    return join([*parts, _contamination(facts), _examples(facts)])


def _table(facts: RunFacts) -> Markup:
    reasons = list(facts.removed)
    columns = [text("source"), *map(Column, ("documents", "kept", "share", *reasons))]
    rows = [
        (
            key(s.name, i),
            whole(s.documents),
            whole(s.kept or 0),
            percent(s.kept or 0, s.documents),
            *(whole(s.removed.get(reason, 0)) for reason in reasons),
        )
        for i, s in enumerate(facts.sources)
    ]
    kept = facts.kept or 0
    total = (
        "all",
        whole(facts.documents),
        whole(kept),
        percent(kept, facts.documents),
        *(whole(facts.removed[reason]) for reason in reasons),
    )
    caption = "Each removed document has one reason: the first that applies, in verdict order."
    return table(columns, rows, caption, total)


def _tokens(facts: RunFacts) -> Markup | None:
    if not any(s.tokens and s.removed_bytes for s in facts.sources):
        return None
    reasons = list(facts.removed)
    columns = [text("source"), *map(Column, ("tokens kept", "bytes per token", "removed (estimate)", *reasons))]
    rows = [
        (
            key(s.name, i),
            None if s.tokens is None else whole(s.tokens),
            None if s.bytes_a_token is None else f"{s.bytes_a_token:.2f}",
            *(_about(s.removed_tokens(reason)) for reason in (None, *reasons)),
        )
        for i, s in enumerate(facts.sources)
    ]
    total = (
        "all",
        whole(sum(s.tokens or 0 for s in facts.sources)),
        None,
        *(_about(_sum([s.removed_tokens(reason) for s in facts.sources])) for reason in (None, *reasons)),
    )
    caption = "Kept tokens are counted. Removed text is never tokenized, so its tokens are estimated: the bytes of the "
    caption += "removed documents divided by the bytes per token of the source's kept documents."
    return join([element("h3", "Tokens removed (estimate)"), table(columns, rows, caption, total)])


def _about(tokens: float | None) -> str | None:
    return None if tokens is None else f"≈ {short(round(tokens))}" if tokens else "0"


def _sum(values: list[float | None]) -> float | None:
    """The sum, None if any value is unknown."""
    return None if any(value is None for value in values) else sum(value for value in values if value is not None)


def lengths(facts: RunFacts) -> Markup | None:
    """Document lengths before and after cleaning, or None if they were not computed."""
    told = [Lengths(s.name, s.lengths, s.kept_lengths) for s in facts.sources if s.lengths is not None]
    if not any(sum(one.read) for one in told):
        return None
    return figure("Documents by the length of their text", both(lambda width, _: lengths_chart(told, width), "lengths"))


def _duplicates(facts: RunFacts) -> Markup | None:
    if facts.duplicates is None:
        return None
    names = [s.name for s in facts.sources]
    within = sum(n for (a, b), n in facts.duplicates.items() if a == b)
    between = sum(n for (a, b), n in facts.duplicates.items() if a != b)
    note = f"{counted(within, 'document')} removed as a copy of one in the same source, {whole(between)} as a copy of "
    note += "one in another source."
    caption = "Rows: the source a document was removed from. Columns: the source of the kept copy."
    matrix = heat_table(names, names, facts.duplicates, "removed from ↓  kept in →", caption)
    return join(
        [
            element("h3", "Duplicates within and across sources"),
            element("p", note),
            element("div", matrix, class_="scroll", tabindex=0),
        ]
    )


def _holdout(facts: RunFacts) -> Markup | None:
    if not facts.holdout:
        return None
    names = [s.name for s in facts.sources]
    caption = "Rows: the source a training document was removed from. Columns: the source of the held-out document."
    matrix = heat_table(names, names, facts.holdout, "removed from ↓  held out in →", caption)
    note = f"{counted(sum(facts.holdout.values()), 'training document')} removed as a copy of a held-out document."
    return join(
        [
            element("h3", "Copies of held-out documents"),
            element("p", note),
            element("div", matrix, class_="scroll", tabindex=0),
        ]
    )


def _references(facts: RunFacts) -> Markup | None:
    if not facts.references:
        return None
    sets = list(dict.fromkeys(place for _, place in facts.references))
    caption = "Rows: the source a document was removed from. Columns: where the reference document is that it is like."
    matrix = heat_table(
        [s.name for s in facts.sources], sets, facts.references, "removed from ↓  like one of →", caption
    )
    note = f"{counted(sum(facts.references.values()), 'document')} removed as a copy of a reference document."
    return join(
        [
            element("h3", "Copies of reference documents"),
            element("p", note),
            element("div", matrix, class_="scroll", tabindex=0),
        ]
    )


def _contamination(facts: RunFacts) -> Markup | None:
    if facts.contamination is None:
        return None
    names = [s.name for s in facts.sources]
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _ in facts.contamination))
    heading = element("h3", "Benchmark items found")
    if not benchmarks:
        return join([heading, element("p", "No document contained a benchmark item.")])
    caption = "Documents removed because they contain a benchmark item, by benchmark and source."
    matrix = heat_table(benchmarks, names, facts.contamination, "benchmark ↓  source →", caption)
    found = draw_hits(facts.hits) if facts.hits is not None else []
    return join([heading, element("div", matrix, class_="scroll", tabindex=0), *found])


def _examples(facts: RunFacts) -> Markup | None:
    if not facts.examples:
        return None
    drawn = [element("h3", "Examples"), element("p", "A few removed documents per reason, with evidence.")]
    for reason in facts.removed:
        some = [_example(example) for example in facts.examples if example.reason == reason]
        total = whole(facts.removed.get(reason, 0))
        if some:
            drawn.append(details(f"{reason}: {len(some)} of {total}", some))
    return join(drawn)


def _example(example: Example) -> Markup:
    evidence = element(
        "dl",
        [
            element("div", element("dt", name.replace("_", " ")), element("dd", _value(value)))
            for name, value in example.evidence.items()
        ],
        class_="evidence",
    )
    mine = _document("removed", example.document)
    if example.other is None:
        return element("article", evidence, mine)
    return element(
        "article",
        evidence,
        element(
            "div",
            mine,
            _document("kept" if example.reason == "duplicate" else "held out", example.other),
            class_="pair",
        ),
    )


def _value(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {_value(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(_value(inner)) for inner in value)
    return str(value)


def _document(what: str, place: Place) -> Markup:
    where = element("p", f"{what}: {place.source}, {place.origin}, id {place.id}", class_="where")
    return element("div", where, element("pre", _marked(place), class_="text"))


def _marked(place: Place) -> list[object]:
    parts: list[object] = []
    at = 0
    for start, end in place.marks:
        parts += [place.text[at:start], element("mark", place.text[start:end])]
        at = end
    return [*parts, place.text[at:]]
