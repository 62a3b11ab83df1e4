"""What went in, what was held out, and under which licenses."""

from __future__ import annotations

from headrace.documents.readers.base import lost
from headrace.report.facts import RunFacts
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import percent, short, size, whole
from headrace.report.tables import Column, key, table, text


def went_in(facts: RunFacts) -> Markup:
    """Sources: files, documents, text, what could not be read."""
    columns = [
        text("source"),
        *map(Column, ("files", "documents", "text", "characters", "quarantined", "lost", "empty")),
    ]
    rows = [
        (
            key(s.name, i),
            None if s.files is None else whole(s.files),
            whole(s.documents),
            size(s.bytes),
            short(s.characters),
            whole(s.quarantined),
            lost(s.lost_rows, s.lost_bytes),
            whole(s.skipped),
        )
        for i, s in enumerate(facts.sources)
    ]
    files = None if any(s.files is None for s in facts.sources) else whole(sum(s.files or 0 for s in facts.sources))
    total = (
        "all",
        files,
        whole(facts.documents),
        size(sum(s.bytes for s in facts.sources)),
        short(sum(s.characters for s in facts.sources)),
        whole(sum(s.quarantined for s in facts.sources)),
        lost(sum(s.lost_rows for s in facts.sources), sum(s.lost_bytes for s in facts.sources)),
        whole(sum(s.skipped for s in facts.sources)),
    )
    note = "Quarantined: records that could not be read, listed with file, line and error next to the documents. "
    note += "Lost: what damaged files promised but did not deliver. Empty: records without text."
    return join([table(columns, rows, total=total), element("p", note, class_="note"), _licences(facts)])


def _licences(facts: RunFacts) -> Markup | None:
    found = facts.by_licence
    if not any(licence.name for licence in found):
        return None
    tokens = sum(licence.tokens or 0 for licence in found)
    rows = [
        (
            licence.name or "not stated",
            whole(licence.documents),
            None if licence.tokens is None else whole(licence.tokens),
            None if licence.tokens is None else percent(licence.tokens, tokens),
        )
        for licence in found
    ]
    columns = [text("license"), *map(Column, ("documents", "tokens", "share of tokens"))]
    caption = "Kept documents by license, over all splits; tokens are counted once, regardless of epochs."
    return join([element("h3", "Licenses"), table(columns, rows, caption)])


def splits(facts: RunFacts) -> Markup | None:
    """Kept documents by split and source."""
    names = [name for name in ("train", "validation", "test") if any(s.splits.get(name) for s in facts.sources)]
    if not names:
        return None
    columns = [text("source"), *map(Column, names), Column("kept"), Column("tokens, counted once")]
    rows = [
        (
            key(s.name, i),
            *(whole(s.splits.get(name, 0)) for name in names),
            None if s.kept is None else whole(s.kept),
            None if s.tokens is None else whole(s.tokens),
        )
        for i, s in enumerate(facts.sources)
    ]
    tokens = [s.tokens for s in facts.sources if s.tokens is not None]
    total = (
        "all",
        *(whole(sum(s.splits.get(name, 0) for s in facts.sources)) for name in names),
        whole(facts.kept or 0),
        whole(sum(tokens)) if tokens else None,
    )
    note = "A keyed hash of a document's content decides its split, so exact copies fall on the same side."
    return join([element("p", note), table(columns, rows, "Kept documents by split.", total)])
