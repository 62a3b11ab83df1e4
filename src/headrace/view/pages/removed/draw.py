"""The page of removed documents."""

from __future__ import annotations

from typing import Any

from headrace.report.charts.removal import RemovalBar, removal_chart
from headrace.report.facts import SourceFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, short, size, whole
from headrace.report.palette import texture
from headrace.report.tables import Column, both, figure, table, text
from headrace.view.address import address
from headrace.view.labels import Precision
from headrace.view.layout import empty, pending
from headrace.view.pages.document.draw import draw_evidence, draw_value
from headrace.view.pages.document.draw import short as on_one_line
from headrace.view.pages.removed.load import Cases, Looked, Removed, Shown
from headrace.view.quarantine import PAGE, QUARANTINED, Quarantined
from headrace.view.side_by_side import draw_comparison
from headrace.view.texts import marked

ORDERS = {"sample": "random sample", "nearest": "nearest the limit", "kept": "almost removed"}


def heading(query: Removed, shown: Shown) -> str:
    """What is looked at."""
    if query.reason is None:
        return "Removed"
    return f"{'Not read' if query.reason == QUARANTINED else 'Removed'}: {query.reason}"


def draw(query: Removed, shown: Shown) -> Markup:
    """All reasons, or one with a document."""
    if query.reason is None:
        return join([_chart(shown), _reasons(query, shown), _tokens(shown)])
    back = element("a", "all reasons", href=address("removed"))
    if shown.quarantined is not None:
        return join([element("p", back, class_="note"), _sources(query, shown), _quarantined(query, shown.quarantined)])
    parts = [element("p", back, class_="note"), _sources(query, shown), _orders(query, shown)]
    if shown.cases is None:
        return join([*parts, pending("Choosing documents …")])
    return join([*parts, _case(query, shown.cases), _judged(query, shown.cases)])


def _here(query: Removed, **values: object) -> str:
    return address("removed", **query.changed(**values))


def _reasons(query: Removed, shown: Shown) -> Markup:
    if not any(one.kept is not None for one in shown.sources):
        return empty("Nothing has been judged yet.")
    names = [one.name for one in shown.sources]
    total = sum(one.documents for one in shown.sources)
    rows: list[tuple[object, ...]] = []
    for place, (reason, n) in enumerate(shown.reasons.items()):
        key = element(
            "svg", element("rect", width=12, height=12, class_=f"fill {texture(place)}"), class_="chart swatch"
        )
        rows.append(
            (
                join([key, element("a", reason, href=address("removed", reason=reason))]),
                *(_count(reason, one) for one in shown.sources),
                whole(n),
                percent(n, total),
                _precision(shown.precisions.get(reason)),
                _limits(shown.limits.get(reason, [])),
            )
        )
    rows.append(
        (
            "kept",
            *(_kept(one) for one in shown.sources),
            whole(sum(s.kept or 0 for s in shown.sources)),
            percent(sum(s.kept or 0 for s in shown.sources), total),
            None,
            None,
        )
    )
    unread = sum(one.quarantined for one in shown.sources)
    if unread:
        link = element("a", QUARANTINED, href=address("removed", reason=QUARANTINED))
        cells = (_link(one.quarantined, QUARANTINED, one.name) for one in shown.sources)
        rows.append((link, *cells, whole(unread), None, None, None))
    columns = [text("reason"), *map(Column, (*names, "all", "share", "rightly removed")), text("limit")]
    caption = "Documents by the reason for which they were removed and by source. A number leads to the documents."
    return table(columns, rows, caption, groups=(len(shown.reasons),))


def _chart(shown: Shown) -> Markup | None:
    bars = [RemovalBar(s.name, s.kept, s.removed, s.quarantined) for s in shown.sources if s.kept is not None]
    if not bars:
        return None
    drawn = both(lambda width, _: removal_chart(bars, list(shown.reasons), width), "removal")
    return figure("Documents kept and removed, by source", drawn)


def _count(reason: str, one: SourceFacts) -> object:
    return _link(one.removed.get(reason, 0), reason, one.name)


def _link(n: int, reason: str, source: str) -> object:
    return element("a", whole(n), href=address("removed", reason=reason, source=source)) if n else "0"


def _kept(one: SourceFacts) -> object:
    return element("a", whole(one.kept or 0), href=address("documents", source=one.name, kept="yes"))


def _limits(paths: list[str]) -> Markup | None:
    links = [element("a", "move" if len(paths) == 1 else path, href=address("threshold", limit=path)) for path in paths]
    return join([[", " if i else None, link] for i, link in enumerate(links)]) if links else None


def _precision(found: Precision | None) -> object:
    if found is None or found.share is None or found.low is None or found.high is None:
        return None
    return f"{100 * found.share:.0f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"


def _tokens(shown: Shown) -> Markup | None:
    if shown.counting:
        return pending("Adding up the bytes of removed documents …")
    if not any(one.tokens and one.removed_bytes for one in shown.sources):
        return None
    rows = []
    for reason in shown.reasons:
        found = [one.removed_tokens(reason) for one in shown.sources]
        total = None if None in found else sum(n or 0 for n in found)
        rows.append((reason, *map(_about, (*found, total))))
    columns = [text("reason"), *map(Column, (*(one.name for one in shown.sources), "all"))]
    note = "Estimates: removed documents are not tokenized; they are taken to have as many bytes a token as the kept "
    note += "ones of their source."
    return element("section", element("h2", "Tokens removed (estimate)"), table(columns, rows, note))


def _about(tokens: float | None) -> str | None:
    return None if tokens is None else f"≈ {short(round(tokens))}" if tokens else "0"


def _choices(name: str, links: list[tuple[object, str, bool]]) -> Markup:
    drawn = [element("a", said, href=href, aria_current="true" if here else None) for said, href, here in links]
    return element("nav", element("span", name), drawn, aria_label=name, class_="choices")


def _sources(query: Removed, shown: Shown) -> Markup:
    def n(one: SourceFacts) -> int:
        return one.quarantined if query.reason == QUARANTINED else one.removed.get(query.reason or "", 0)

    total = sum(map(n, shown.sources))
    links: list[tuple[object, str, bool]] = [
        (f"all ({whole(total)})", _here(query, source=None, at=0), query.source is None)
    ]
    links += [
        (f"{one.name} ({whole(n(one))})", _here(query, source=one.name, at=0), query.source == one.name)
        for one in shown.sources
        if n(one) or one.name == query.source
    ]
    return _choices("source", links)


def _orders(query: Removed, shown: Shown) -> Markup:
    limits = shown.limits.get(query.reason or "", [])
    links: list[tuple[object, str, bool]] = [
        (ORDERS[name], _here(query, order=name, at=0), query.order == name) for name in shown.orders
    ]
    moves = [(f"move {path.removeprefix('filters.')}", address("threshold", limit=path), False) for path in limits]
    return join([_choices("documents", links), _choices("limits", list(moves)) if moves else None])


def _case(query: Removed, cases: Cases) -> Markup:
    one = cases.document
    if one is None:
        said = "No kept document is measured by this filter." if query.order == "kept" else "There are none."
        return empty(said)
    before = element("a", "← previous (k)", href=_here(query, at=cases.at - 1), data_key="k") if cases.at else None
    after = None
    if cases.at + 1 < cases.count:
        after = element("a", "next (j) →", href=_here(query, at=cases.at + 1), data_key="j")
    place = f"{whole(cases.at + 1)} of {whole(cases.count)}"
    if query.order == "sample":
        place += f", sampled from {whole(cases.of)} with seed {query.seed}" if cases.count < cases.of else ""
    turn = element("p", element("span", before), element("span", place), element("span", after), class_="turn")
    return element("section", turn, _label(query, cases, one), _evidence(query, one), _document(one), class_="case")


def _evidence(query: Removed, one: Looked) -> Markup:
    decision, evidence = one.decision, one.verdict["evidence"]
    if decision is not None and decision["limit"] is not None:
        measured = draw_evidence({k: v for k, v in _dict(decision["measured"]).items() if v is not None})
        said = [element("b", query.reason), measured, element("span", "limit ", draw_value(decision["limit"]))]
        return element("div", said, class_="measured")
    return element("div", element("b", query.reason), draw_evidence(evidence), class_="measured")


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"measured": value}


def _document(one: Looked) -> Markup:
    about = one.about
    link = element("a", f"document {whole(one.row)}", href=address("document", row=one.row))
    origin = on_one_line(f"{about['source']}: {about['path'] or about['origin_file']}:{about['origin_row']}", 200)
    where = element("p", link, " ", origin, f", {size(about['bytes'])}", class_="where")
    if one.comparison is not None:
        other: object = "reference document"
        if one.beside is not None:
            other = element("a", f"kept: document {whole(one.beside)}", href=address("document", row=one.beside))
        same = one.comparison.jaccard
        said = element("p", f"True similarity {same:.3f}.", class_="note") if same is not None else None
        return join([where, said, draw_comparison(one.comparison, "removed", other), _plain(one)])
    return join([where, _plain(one)])


def _plain(one: Looked) -> Markup:
    evidence = one.verdict["evidence"] or {}
    marks = [(evidence["start"], evidence["end"])] if {"start", "end"} <= evidence.keys() else []
    piece = one.text
    if not piece.text:
        return empty("It has no text.")
    more = None
    if piece.end < piece.characters:
        href = f"{address('document', row=one.row, at=piece.end)}#text"
        more = element("p", element("a", f"{whole(piece.characters - piece.end)} more characters", href=href))
    return join([element("pre", marked(piece.text, 0, marks), class_="text", tabindex=0), more])


def _label(query: Removed, cases: Cases, one: Looked) -> Markup:
    if not cases.can_label:
        return element("p", "The run folder cannot be written, so labels are off.", class_="note")
    ask = "Should it be removed?" if query.order == "kept" else "Rightly removed?"
    given = {"right": "You said: yes. ", "wrong": "You said: no. "}.get(one.label or "", "")
    buttons = [
        _button("Yes (y)", "right", "y", one.label == "right"),
        _button("No (n)", "wrong", "n", one.label == "wrong"),
    ]
    judge = element("form", _state(query, cases.at, one.row), element("span", given or ask), buttons, **_POST)
    undo = None
    if cases.undo is not None:
        undo = element("form", _state(query, *cases.undo), _button("Undo (u)", "undo", "u", False), **_POST)
    return element("div", judge, undo, class_="label")


_POST = {"method": "post", "action": "/removed/label"}


def _button(said: str, value: str, key: str, pressed: bool) -> Markup:
    return element("button", said, name="label", value=value, data_key=key, aria_pressed="true" if pressed else "false")


def _state(query: Removed, at: int, row: int) -> list[Markup]:
    values = {"reason": query.reason, "source": query.source, "order": query.order, "seed": query.seed, "at": at}
    return [
        element("input", type="hidden", name=name, value=value)
        for name, value in (values | {"row": row}).items()
        if value is not None
    ]


def _judged(query: Removed, cases: Cases) -> Markup:
    found = cases.precision
    where = f" in {query.source}" if query.source else ""
    if found.share is None or found.low is None or found.high is None:
        said = [
            f"No document of a random sample{where} is labeled yet. Labels of a sample tell how often the filter is "
        ]
        said.append("right; those of documents nearest the limit do not, and are counted apart.")
    else:
        of = found.right + found.wrong
        said = [
            element("strong", f"{100 * found.share:.0f} % rightly removed"),
            f"{where}: {whole(found.right)} of {counted(of, 'labeled document')} of a random sample; ",
            f"with 95 % probability between {100 * found.low:.0f} and {100 * found.high:.0f} % (Wilson's interval).",
        ]
    if found.apart:
        said.append(f" {counted(found.apart, 'label')} of documents that were not sampled so: apart.")
    note = "Labels are saved in labels.jsonl of the run folder, and hold as long as the limit does."
    return element("section", element("h2", "Precision"), element("p", said), element("p", note, class_="note"))


def _quarantined(query: Removed, found: Quarantined) -> Markup:
    if not found.of:
        return empty("Every row was read.")
    rows = [
        (
            on_one_line(f"{one['source']}: {one['file']}", 200),
            whole(one["line"]),
            on_one_line(one["error"]),
            element("code", on_one_line(one["excerpt"] or "", 300)),
        )
        for one in found.entries
    ]
    links = []
    if found.first:
        links.append(element("a", "previous", href=_here(query, at=max(0, found.first - PAGE)), data_key="k"))
    if found.first + PAGE < found.of:
        links.append(element("a", "next", href=_here(query, at=found.first + PAGE), data_key="j"))
    place = f"{whole(found.first + 1)} to {whole(found.first + len(found.entries))} of {whole(found.of)} "
    turn = element("p", place, [[link, " "] for link in links], class_="note")
    return join([table([text("file"), Column("line"), text("error"), text("content")], rows), turn])
