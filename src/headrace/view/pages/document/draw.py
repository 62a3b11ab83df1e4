"""The page of a document."""

from __future__ import annotations

from typing import Any

from headrace.report.hits import draw_hit
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, size, whole
from headrace.report.tables import Column, details, table, text
from headrace.view.address import address
from headrace.view.layout import empty, pending
from headrace.view.pages.document.copies import PAGE as COPIES
from headrace.view.pages.document.copies import Copies, Copy
from headrace.view.pages.document.load import Document, Shown
from headrace.view.pages.document.training import PAGE as PLACES
from headrace.view.pages.document.training import Place, Trained
from headrace.view.side_by_side import draw_comparison
from headrace.view.texts import PIECE, marked
from headrace.visible import one_line

OUTCOME = {True: "removes it", False: "keeps it", None: "noted"}
FATES = {
    "trained": "trained on",
    "skipped": "skipped: outlying",
    "left_out": "left out",
    "left": "to come",
    "unused": "in no step",
}
CONTEXT = 400  # characters shown before a benchmark's text
PATH = 400  # characters of a name or a value


def heading(query: Document, shown: Shown) -> str:
    """The place it came from."""
    about = shown.about
    return f"{about['source']}: {short(about['path'] or about['origin_file'], 160)}"


def draw(query: Document, shown: Shown) -> Markup:
    """The page."""
    return join(
        [
            element("p", _standing(shown), class_="lead"),
            _pages(query, shown),
            draw_facts(shown),
            _text(query, shown),
            _benchmarks(query, shown),
            _decisions(shown),
            _copies(query, shown),
            _training(query, shown),
        ]
    )


def short(value: object, most: int = PATH) -> str:
    """A value on one line, cut if it is long."""
    said = one_line(str(value))
    return said if len(said) <= most else said[:most] + "…"


def _standing(shown: Shown) -> Markup:
    """What became of it, in a line."""
    verdict = shown.verdict
    if verdict is None:
        return element("span", "no verdict yet", class_="state")
    if verdict["keep"]:
        told = [element("span", "kept", class_="state kept"), f" in the {verdict['split']} split"]
        if shown.tokens is not None:
            told.append(f", {counted(shown.tokens, 'token')}")
        return join(told)
    reason = verdict["reason"]
    href = address("removed", reason=reason, source=shown.about["source"])
    return join(
        [
            element("span", "removed", class_="state removed"),
            " ",
            element("a", reason, href=href),
            " ",
            draw_evidence(verdict["evidence"]),
        ]
    )


def _pages(query: Document, shown: Shown) -> Markup:
    before = _step("← previous", "k", shown.row - 1) if shown.row else None
    after = _step("next →", "j", shown.row + 1) if shown.row + 1 < shown.documents else None
    links = [("#text", "Text"), ("#decisions", "Decisions"), ("#copies", "Copies"), ("#training", "Training")]
    return element(
        "nav",
        [element("a", name, href=href) for href, name in links],
        element("span", before, f" document {whole(shown.row)} of {whole(shown.documents)} ", after, class_="turn"),
        aria_label="Parts of this page",
        class_="parts",
    )


def _step(name: str, key: str, row: int) -> Markup:
    return element("a", name, href=address("document", row=row), data_key=key)


def draw_facts(shown: Shown) -> Markup:
    """Where it came from, its license and its size."""
    about = shown.about
    said, how = shown.license or (None, "")
    facts: list[tuple[str, object]] = [
        ("source", element("a", about["source"], href=address("documents", source=about["source"]))),
        ("origin", element("code", short(f"{about['origin_file']}:{about['origin_row']}"))),
        ("repository", about["repo"] and short(about["repo"])),
        ("path", about["path"] and short(about["path"])),
        ("language", about["language"] and short(about["language"])),
        ("license", "not stated" if said is None else [short(said), element("small", f" {how}")]),
        ("size", f"{size(about['bytes'])}, {counted(shown.text.characters, 'character')}"),
        ("id", element("code", about["id"])),
        *_making(shown.made),
    ]
    drawn = [element("div", element("dt", name), element("dd", value)) for name, value in facts if value]
    more = None if shown.meta is None else details("Other fields of its record", element("pre", shown.meta))
    return join([element("dl", drawn, class_="facts"), more])


def _making(made: dict[str, Any] | None) -> list[tuple[str, object]]:
    """Who wrote a synthetic document, and links to the documents that inspired it."""
    if made is None:
        return []
    seeds = [element("a", element("code", one[:12]), href=address("find", name=one)) for one in made["seeds"]]
    licenses = f" under {', '.join(made['licenses'])}" if made["licenses"] else ""
    return [
        ("written by", short(f"{made['generator']} ({made['method']}, prompt {made['prompt'][:8]})")),
        ("inspired by", [*(part for seed in seeds for part in (seed, " ")), short(licenses)]),
    ]


def _text(query: Document, shown: Shown) -> Markup:
    piece, found = shown.text, shown.benchmark
    marks = [] if found is None else [(found.start, found.end)]
    marks = sorted({*marks, *((hit.start, hit.end) for hit in shown.hits)})
    told = []
    if found is not None:
        start = max(0, found.start - CONTEXT)
        share = "" if found.overlap is None else f", {percent(found.overlap, 1)} of its n-grams"
        where = f"characters {whole(found.start)} to {whole(found.end)}"
        told.append(
            element(
                "p",
                "Marked: text of the benchmark item ",
                element("code", short(found.item)),
                f"{share}, at ",
                element("a", where, href=f"{_here(query, at=start)}#text"),
                ".",
                class_="note",
            )
        )
    if not piece.text:
        told.append(empty("It has no text."))
    elif shown.turns is not None:
        told.append(element("div", [_turn(one.role, one.text) for one in shown.turns], class_="turns"))
        told.append(details("As plain text", element("pre", marked(piece.text, piece.start, marks), class_="text")))
    else:
        told.append(element("pre", marked(piece.text, piece.start, marks), class_="text whole", tabindex=0))
    return element("section", element("h2", "Text"), _pieces(query, shown), told, id="text")


def _benchmarks(query: Document, shown: Shown) -> Markup | None:
    """The benchmark items in it, each beside its text."""
    if not shown.hits:
        return None
    drawn = []
    for hit in shown.hits:
        href = f"{_here(query, at=max(0, hit.start - CONTEXT))}#text"
        drawn.append(draw_hit(hit, element("a", "this document", href=href)))
    head = element("h2", "Benchmark items")
    note = element("p", "Each beside the document; marked: what both have.", class_="note")
    return element("section", head, note, drawn, id="benchmarks")


def _turn(role: str, said: str) -> Markup:
    return element("div", element("b", role), element("pre", said), class_="said" if role != "user" else "said user")


def _pieces(query: Document, shown: Shown) -> Markup | None:
    piece = shown.text
    if piece.end - piece.start >= piece.characters:
        return None
    links = []
    if piece.start:
        links.append(element("a", "beginning", href=f"{_here(query, at=0)}#text"))
        links.append(element("a", "earlier", href=f"{_here(query, at=max(0, piece.start - PIECE))}#text"))
    if piece.end < piece.characters:
        links.append(element("a", "further", href=f"{_here(query, at=piece.end)}#text"))
        links.append(element("a", "end", href=f"{_here(query, at=max(0, piece.characters - PIECE))}#text"))
    where = f"Characters {whole(piece.start)} to {whole(piece.end)} of {whole(piece.characters)}: "
    return element("p", where, [[" " if i else None, link] for i, link in enumerate(links)], class_="note")


def _here(query: Document, **values: object) -> str:
    return address("document", **query.changed(**values))


def _decisions(shown: Shown) -> Markup:
    rows = [
        (
            one["reason"],
            draw_evidence(one["measured"]),
            None if one["limit"] is None else draw_value(one["limit"]),
            element("span", OUTCOME[one["removes"]], class_="strong" if one["removes"] else None),
        )
        for one in shown.decisions
    ]
    columns = [text(name) for name in ("what", "measured", "limit", "outcome")]
    drawn = table(columns, rows) if rows else empty("Nothing was measured or compared.")
    measures = [(name, draw_value(value)) for name, value in shown.measures.items()]
    more = details("All measures", table([text("measure"), Column("value")], measures)) if measures else None
    note = element("p", "The first that removes a document gives the reason.", class_="note") if rows else None
    return element("section", element("h2", "Decisions"), note, drawn, more, id="decisions")


def draw_evidence(evidence: Any) -> Markup:
    """What was measured, in words."""
    if not isinstance(evidence, dict):
        return join([] if evidence is None else [draw_value(evidence)])
    shown = [(name, value) for name, value in evidence.items() if value is not None]
    drawn = [
        element("div", element("dt", name.replace("_", " ")), element("dd", _linked(name, value, evidence)))
        for name, value in shown
    ]
    return element("dl", drawn, class_="evidence")


def _linked(name: str, value: Any, evidence: dict[str, Any]) -> object:
    if name in ("kept_row", "component", "exact_of") and isinstance(value, int) and "against" not in evidence:
        return element("a", whole(value), href=address("document", row=value))
    return draw_value(value)


def draw_value(value: Any) -> object:
    """A measured value or a limit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return whole(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')}: {draw_value(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(draw_value(one)) for one in value)
    return short(value)


def _copies(query: Document, shown: Shown) -> Markup:
    found = shown.copies
    parts: list[object] = [element("h2", "Copies")]
    if found is None:
        parts.append(pending("Looking for its copies …"))
    elif found.size == 1:
        parts.append(empty("No copies of it, exact or near, were found."))
    else:
        outside = found.size - found.found
        told = f"A group of {counted(found.size, 'document')} that are copies of each other, exactly or nearly"
        told += f"; {whole(outside)} of them in reference sets." if outside else "."
        parts += [element("p", told), _group(query, shown, found)]
    if shown.comparison is not None:
        other: object = "reference document"
        if shown.beside is not None:
            other = element("a", f"document {whole(shown.beside)}", href=address("document", row=shown.beside))
        names = (f"this document ({whole(shown.row)})", other)
        same = shown.comparison.jaccard
        parts.append(element("h3", "Side by side", "" if same is None else f": similarity {same:.3f}", id="beside"))
        parts.append(draw_comparison(shown.comparison, *names))
    return element("section", parts, id="copies")


def _group(query: Document, shown: Shown, found: Copies) -> Markup:
    rows = [_copy(query, shown, one) for one in found.members]
    columns = [
        text("document"),
        text("source"),
        text("origin"),
        Column("size"),
        text("text"),
        text("verdict"),
        text("side by side"),
    ]
    more = _more(query, "copies", found.first, COPIES, found.found)
    return join([table(columns, rows), more])


def _copy(query: Document, shown: Shown, one: Copy) -> tuple[object, ...]:
    mine = one.row == shown.row
    compare = None
    if one.row == shown.beside:
        compare = "shown below"
    elif not mine:
        compare = element("a", "compare", href=f"{_here(query, beside=one.row)}#beside")
    return (
        "this one" if mine else element("a", whole(one.row), href=address("document", row=one.row)),
        one.source,
        short(one.origin, 120),
        size(one.bytes),
        None if mine else "equal" if one.exact else "similar",
        None if one.reason is None else element("strong", "kept") if one.reason == "" else f"removed: {one.reason}",
        compare,
    )


def _more(query: Document, field: str, first: int, most: int, of: int) -> Markup | None:
    if of <= most:
        return None
    links = []
    if first:
        links.append(element("a", "earlier", href=_here(query, **{field: max(0, first - most)})))
    if first + most < of:
        links.append(element("a", "further", href=_here(query, **{field: first + most})))
    said = f"{whole(first + 1)} to {whole(min(of, first + most))} of {whole(of)}: "
    return element("p", said, [[" ", link] for link in links], class_="note")


def _training(query: Document, shown: Shown) -> Markup:
    parts: list[object] = [element("h2", "Training")]
    if shown.trained is None:
        parts.append(pending("Looking for the rows that hold it …"))
    elif not shown.trained:
        parts.append(empty("No sequence is finished yet."))
    else:
        parts += [_stage(query, name, found) for name, found in shown.trained.items() if found.places]
        without = [name for name, found in shown.trained.items() if not found.places]
        if without:
            parts.append(element("p", f"Not in the sequence of {', '.join(without)}."))
    return element("section", parts, id="training")


def _stage(query: Document, name: str, found: Trained) -> Markup:
    link = element("a", name, href=address("sequence", stage=name))
    head = f": {counted(found.tokens, 'token')} in {counted(found.places, 'row', 'rows')}"
    head += f", {found.epochs} times" if found.epochs > 1 else ""
    rows = [_place(name, one) for one in found.shown]
    names = ("row", "positions", "tokens", "from its token", "epoch", "step")
    losses = (Column("loss"), Column("loss of the row"))
    drawn = table([*map(Column, names), text("then"), *losses, text("kind")], rows)
    return join([element("p", link, head, "."), drawn, _more(query, "places", found.first, PLACES, found.places)])


def _place(stage: str, one: Place) -> tuple[object, ...]:
    at, color, step = one.placement, None if one.loss is None else "loss", None
    if one.step is not None:
        step = element("a", whole(one.step), href=address("step", stage=stage, step=one.step))
    return (
        element("a", whole(at.row), href=address("sequence", stage=stage, row=at.row, color=color)),
        f"{whole(at.start)} to {whole(at.start + at.length - 1)}",
        whole(at.length),
        whole(at.offset),
        whole(at.epoch + 1),
        step,
        None if one.fate is None else FATES[one.fate],
        *(None if loss is None else f"{loss:.4g}" for loss in (one.loss, one.row_loss)),
        at.kind,
    )
