"""What of a text, such as what a model wrote, stands word for word in the documents, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

import numpy as np
from pydantic import Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, whole
from headrace.select.licences.columns import licences_of
from headrace.sequence.provenance import rows_with
from headrace.sequence.store import ArrowSequence
from headrace.view.address import address
from headrace.view.layout import empty, pending
from headrace.view.page import Page, Query
from headrace.view.search.copied import Jobs, Stretch, stretches
from headrace.view.search.stretches import LEAST, LONGEST
from headrace.view.target import Missing, Target, Wrong

MOST = 30  # stretches listed
STEPS = 8  # of a document in a stage
JOBS = Jobs()


class CopiedQuery(Query):
    """A text in the address, or the name of one that was sent."""

    q: Annotated[str, Field(max_length=4000)] = ""
    text: Annotated[str | None, Field(pattern="^[0-9a-f]{16}$")] = None


@dataclass(frozen=True)
class Seen:
    """The rows of a stage's sequence that hold a document: how many, how many of them were trained on, and some of the
    steps that did."""

    stage: str
    rows: int
    trained: int
    steps: list[int]


@dataclass(frozen=True)
class Holder:
    """A document that holds a stretch, at which byte, and where it is in the stages; None while that is looked for."""

    row: int
    id: str
    source: str
    name: str
    license: str | None
    at: int
    seen: list[Seen] | None


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        text: the text.
        searched, rows: documents searched so far, and in all.
        stretches: the longest first: ``start`` and ``length`` in bytes of the text.
        words: each of them, as text.
        holders: documents that hold each of them.
        covered: bytes of the text that stand in documents, in stretches of :data:`LEAST` or more.
    """

    text: str
    searched: int
    rows: int
    stretches: list[Stretch]
    words: list[str]
    holders: list[list[Holder]]
    covered: int


def load(target: Target, query: CopiedQuery) -> Shown:
    """Start looking, or see how far it is."""
    documents = target.documents
    if documents is None or (not query.q and query.text is None):
        return Shown("", 0, 0 if documents is None else documents.rows, [], [], [], 0)
    if query.text is not None:
        job = JOBS.find(query.text)
        if job is None:
            raise Missing("This text is not at hand any more.", query.text, "Paste it again.")
    else:
        job = JOBS.start(_checked(query.q), documents)
    job.ended.wait(target.patience)
    if job.failed is not None:
        raise job.failed
    searched, found = job.searched, stretches(job.matches)
    covered = sum(len(part) for part in _union(found))
    found = found[:MOST]
    rows = sorted({match.row for one in found for match in one.matches})
    columns = ["id", "source", "path", "origin_file", "origin_row"]
    told = dict(zip(rows, fetch(documents, rows, columns).to_pylist(), strict=True)) if rows else {}
    found_licenses = licences_of(documents, np.array(rows), target.artifact("licences")) if rows else []
    licenses = dict(zip(rows, found_licenses, strict=True))
    seen = target.later(("seen", tuple(rows)), lambda: _seen(target, rows)) if searched == job.rows else None
    holders = [
        [
            Holder(
                match.row,
                told[match.row]["id"],
                told[match.row]["source"],
                told[match.row]["path"] or f"{told[match.row]['origin_file']}:{told[match.row]['origin_row']}",
                licenses[match.row],
                match.at,
                None if seen is None else seen.get(match.row, []),
            )
            for match in one.matches
        ]
        for one in found
    ]
    words = [job.text[one.start : one.start + one.length].decode("utf-8", "replace") for one in found]
    return Shown(job.text.decode(), searched, job.rows, found, words, holders, covered)


def _seen(target: Target, rows: list[int]) -> dict[int, list[Seen]]:
    """Where documents are in the stages that are or will be trained."""
    found: dict[int, list[Seen]] = {row: [] for row in rows}
    for name in target.sequences:
        try:
            sequence = target.sequence(name)
        except UserError:  # not finished
            continue
        if target.batch(name) is None or not isinstance(sequence, ArrowSequence):
            continue
        held, which = rows_with(sequence, np.array(rows, dtype=np.uint64))
        steps = target.steps(name)
        for document in np.unique(which).tolist():
            mine = steps.of_rows(np.unique(held[which == document]).tolist())
            trained = sorted({one.step for one in mine if one.fate == "trained" and one.step is not None})
            found[document].append(Seen(name, len(mine), sum(one.fate == "trained" for one in mine), trained[:STEPS]))
    return found


def _union(found: list[Stretch]) -> list[range]:
    """Where the text is covered, without overlaps."""
    out: list[range] = []
    for one in sorted(found, key=lambda one: one.start):
        start = max(one.start, out[-1].stop if out else 0)
        if one.start + one.length > start:
            out.append(range(start, one.start + one.length))
    return out


def _checked(text: str) -> bytes:
    data = text.replace("\r\n", "\n").encode("utf-8", "replace")
    if not LEAST <= len(data) <= LONGEST:
        raise Wrong(
            f"The text has {len(data):,} bytes.", "", f"Paste a text of {LEAST} to {LONGEST:,} bytes: shorter ones are "
            "found by the search for a phrase."
        )  # fmt: skip
    return data


async def send(target: Target, request: Request, body: bytes) -> Response:
    """Take a text that is too long for an address, and lead to its page."""
    fields = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    documents = target.documents
    if documents is None:
        raise Missing("There are no documents here.", str(target.path))
    job = JOBS.start(_checked(fields.get("q", "")), documents)
    return RedirectResponse(address("copied", text=job.name), 303)


def draw(query: CopiedQuery, shown: Shown) -> Markup:
    """The form, the text with what stands in documents marked, and where."""
    form = element(
        "form",
        element("textarea", shown.text, name="q", rows=8, aria_label="Text", required=True),
        element("button", "Look for it"),
        method="post",
        action=address("copied"),
        class_="stacked",
    )
    about = f"Stretches of at least {LEAST} bytes that stand in a document exactly as here."
    if not shown.text:
        return join([element("p", about, class_="lead"), form])
    done = shown.searched >= shown.rows
    waiting = any(holder.seen is None for holders in shown.holders for holder in holders)
    state = (
        pending("Looking for their rows …")
        if done and waiting
        else None
        if done
        else pending(f"Searched {percent(shown.searched, shown.rows)} of the documents …")
    )
    size = len(shown.text.encode())
    said = f"{percent(shown.covered, size)} of the text stands in the documents." if done else None
    items = [
        _stretch(one, words, holders)
        for one, words, holders in zip(shown.stretches, shown.words, shown.holders, strict=True)
    ]
    return join(
        [
            element("p", about, class_="lead"),
            form,
            state,
            element("p", element("strong", said)) if said else None,
            _marked(shown) if items else None,
            element("ol", items, class_="hits") if items else empty("Nothing found.") if done else None,
        ]
    )


def _marked(shown: Shown) -> Markup:
    data, parts, at = shown.text.encode(), [], 0
    for part in _union(shown.stretches):
        parts += [_cut(data[at : part.start]), element("mark", _cut(data[part.start : part.stop]))]
        at = part.stop
    return element("pre", parts, _cut(data[at:]), class_="text")


def _cut(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _stretch(one: Stretch, words: str, holders: list[Holder]) -> Markup:
    where = [
        element(
            "li",
            element("a", holder.name, href=address("document", row=holder.row)),
            element("span", f" {holder.source} · {holder.license or 'license unknown'}", class_="where"),
            [_told(one) for one in holder.seen or ()],
        )
        for holder in holders
    ]
    more = one.documents - len(holders)
    return element(
        "li",
        element("p", element("strong", counted(one.length, "byte")), f" in {counted(one.documents, 'document')}"),
        element("pre", element("mark", words), class_="near"),
        element("ul", where, element("li", f"and {whole(more)} more") if more else None),
    )


def _told(seen: Seen) -> Markup:
    links = [
        [", " if i else " ", element("a", whole(step), href=address("step", stage=seen.stage, step=step))]
        for i, step in enumerate(seen.steps)
    ]
    more = ", …" if seen.trained > len(seen.steps) else ""
    said = f" · {seen.stage}: {counted(seen.rows, 'row')}, {whole(seen.trained)} trained on"
    return element("span", said, [", in step", links, more] if links else None, class_="where")


PAGE = Page(
    about="The longest stretches of a text that stand word for word in the documents, and in which.",
    query=CopiedQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: "What of a text is in the documents",
)
