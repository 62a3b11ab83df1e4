"""All documents: by name, by text, and by what is known of them. Results come as they are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from headrace.report.gather import declared
from headrace.report.markup import Markup, element, join
from headrace.report.numbers import counted, percent, size, whole
from headrace.report.tables import details
from headrace.select.why.locate import is_name
from headrace.view.address import address
from headrace.view.finding import plain
from headrace.view.layout import empty, pending
from headrace.view.named_labels import SEPARATOR, labels_stamp, named_labels
from headrace.view.page import Page, Query
from headrace.view.search.scan import scan
from headrace.view.search.wanted import FACETS, NONE, Corpus, Hit, How, Wanted, search
from headrace.view.target import Target

PATIENCE = 1.0  # seconds that a page searches before it shows what it has, and goes on from there
LINES = 3  # of text shown on either side of a match
VALUES = 40  # of a facet that are listed, most documents first


class DocumentsQuery(Query):
    """What is looked for, and where to go on."""

    q: Annotated[str, Field(max_length=1000)] = ""
    how: How = "text"
    case: bool = False
    source: tuple[str, ...] = ()
    language: tuple[str, ...] = ()
    license: tuple[str, ...] = ()
    reason: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    kept: Literal["yes", "no"] | None = None
    after: Annotated[int, Field(ge=0)] = 0
    n: Annotated[int, Field(ge=1, le=200)] = 20


@dataclass(frozen=True)
class Facet:
    """The documents with one value of a facet, among those that the other facets leave."""

    value: str
    documents: int


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        hits: documents found.
        rows: documents in all.
        next: the row to go on from; None at the end.
        facets: facet -> its values, most documents first; None while they are counted.
    """

    hits: list[Hit]
    rows: int
    next: int | None
    facets: dict[str, list[Facet]] | None


def corpus_of(target: Target) -> Corpus:
    """The documents of a run, with what was found about them."""
    documents = target.documents
    assert documents is not None
    about = target.artifact("verdicts"), target.artifact("licences"), declared(target.recipe)
    return Corpus(documents, *about, named_labels(target))


def load(target: Target, query: DocumentsQuery) -> Shown:
    """Search for a while."""
    if target.documents is None:
        return Shown([], 0, None, {})
    corpus = corpus_of(target)
    combined = target.later("facets", lambda: _combined(corpus), labels_stamp(target))
    reasons = list(query.reason) or None
    if query.kept == "yes":
        reasons = [NONE]
    elif query.kept == "no" and reasons is None and combined is not None:
        reasons = sorted({key[FACETS.index("reason")] for key in combined} - {NONE})
    elif query.kept == "no" and reasons is None:
        reasons = sorted(_reasons(corpus))
    chosen = {"source": query.source, "language": query.language, "license": query.license, "reason": reasons}
    chosen["label"] = query.label
    facets = {name: values for name, values in chosen.items() if values is not None and (values or name == "reason")}
    wanted = Wanted(query.q, query.how, query.case, facets)
    expressions = wanted.expressions()
    found = scan(
        corpus.documents,
        lambda group: search(corpus, wanted, group, expressions, query.after, query.n + 1),
        query.after,
        query.n,
        PATIENCE,
    )
    return Shown(found.found, corpus.documents.rows, found.next, _counts(combined, facets))


def _reasons(corpus: Corpus) -> set[str]:
    counts = {} if corpus.verdicts is None else corpus.verdicts.manifest.counts
    return {reason for one in counts.values() for reason in one["removed"]}


def _combined(corpus: Corpus) -> Counter[tuple[str, ...]]:
    """Documents by all facets at once: of these there are few."""
    total: Counter[tuple[str, ...]] = Counter()
    for shard in range(len(corpus.documents.shards)):
        counted_ = corpus.facets(shard).group_by(list(FACETS)).aggregate([([], "count_all")])
        for row in counted_.to_pylist():
            total[tuple(row[name] for name in FACETS)] += row["count_all"]
    return total


def _counts(
    combined: Counter[tuple[str, ...]] | None, chosen: Mapping[str, Sequence[str]]
) -> dict[str, list[Facet]] | None:
    if combined is None:
        return None
    out = {}
    for i, name in enumerate(FACETS):
        others = [(FACETS.index(other), set(values)) for other, values in chosen.items() if other != name]
        total: Counter[str] = Counter()
        for key, n in combined.items():
            if all(_values(k, key[k]) & values for k, values in others):
                for value in _values(i, key[i]):
                    total[value] += n
        out[name] = [Facet(value, n) for value, n in sorted(total.items(), key=lambda item: (-item[1], item[0]))]
    return out


def _values(facet: int, value: str) -> set[str]:
    """The values of a facet that a combination has."""
    return set(value.split(SEPARATOR)) if FACETS[facet] == "label" else {value}


def draw(query: DocumentsQuery, shown: Shown) -> Markup:
    """The form, the facets, and what was found."""
    found = element("div", _form(query), _named(query), _results(query, shown))
    return element("div", found, _facets(query, shown), class_="columns")


def _named(query: DocumentsQuery) -> Markup | None:
    """What was typed may name one document, as commands write it."""
    name = plain(query.q)
    if not is_name(name):
        return None
    return element("p", element("a", "Open the document of this name", href=address("find", name=name)), class_="note")


def _form(query: DocumentsQuery) -> Markup:
    hows = {"text": "all words", "phrase": "phrase", "regex": "regular expression", "name": "id, path or repository"}
    options = [element("option", said, value=how, selected=how == query.how) for how, said in hows.items()]
    kept = [(n, getattr(query, n)) for n in FACETS]
    hidden = [element("input", type="hidden", name=n, value=one) for n, values in kept for one in values]
    if query.kept is not None:
        hidden.append(element("input", type="hidden", name="kept", value=query.kept))
    return element(
        "form",
        element(
            "input", type="search", name="q", value=query.q, aria_label="Search for", placeholder="Search the text"
        ),
        element("select", options, name="how", aria_label="How"),
        element("label", element("input", type="checkbox", name="case", value="1", checked=query.case), " match case"),
        hidden,
        element("button", "Search"),
        element("a", "What of a text is in here?", href=address("copied")),
        action=address("documents"),
        class_="inline search",
        role="search",
    )


def _results(query: DocumentsQuery, shown: Shown) -> Markup:
    hits = element("ol", [_hit(query, hit) for hit in shown.hits], class_="hits", id="hits")
    if shown.next is None:
        nothing = not shown.hits
        where = " from here on" if query.after else ""
        said = f"No document{where}." if nothing and shown.rows else "No documents yet." if nothing else "That is all."
        return join([hits, empty(said) if nothing else element("p", said, class_="note", id="status")])
    href = address("documents", **query.changed(after=shown.next))
    unfinished = len(shown.hits) < query.n
    said = f"Searched {percent(shown.next, shown.rows)} of {counted(shown.rows, 'document')}."
    more = element("a", "Go on" if unfinished else "More", href=href, id="more", data_unfinished=unfinished or None)
    return join([hits, element("p", said, " ", more, class_="note", id="status", role="status")])


def _hit(query: DocumentsQuery, hit: Hit) -> Markup:
    name = hit.path or hit.origin
    facts = [hit.repo, hit.language, hit.license, size(hit.bytes)]
    if hit.matches > 1:
        facts.append(counted(hit.matches, "match", "matches"))
    removed = element("span", hit.reason, class_="tag removed") if hit.reason else None
    find = query.q if query.q and query.how != "name" else None
    return element(
        "li",
        element("p", element("a", name, href=address("document", row=hit.row)), " ", removed),
        element("p", hit.source, [[" · ", fact] for fact in facts if fact], class_="where"),
        element("pre", *_near(hit), class_="near") if find and hit.match else element("pre", hit.after, class_="near"),
    )


def _near(hit: Hit) -> tuple[object, ...]:
    """The match with a few lines around it."""
    before = "\n".join(hit.before.split("\n")[-LINES:])
    after = "\n".join(hit.after.split("\n")[:LINES])
    return before, element("mark", hit.match), after


def _facets(query: DocumentsQuery, shown: Shown) -> Markup:
    if shown.facets is None:
        return element("aside", pending("Counting …"))
    words = {
        "source": "sources",
        "language": "languages",
        "license": "licenses",
        "reason": "removed as",
        "label": "labels",
    }
    unknown = {"source": "", "language": "not known", "license": "not known", "reason": "kept", "label": "none"}
    blocks = []
    for name, facets in shown.facets.items():
        if len(facets) < 2 and not getattr(query, name):
            continue
        rows = [element("li", _value(query, name, one, unknown[name])) for one in facets[:VALUES]]
        if len(facets) > VALUES:
            rows.append(element("li", f"and {whole(len(facets) - VALUES)} more", class_="note"))
        blocks.append(details(words[name].capitalize(), element("ul", rows), open_=True))
    return element("aside", blocks, aria_label="Facets")


def _value(query: DocumentsQuery, name: str, facet: Facet, unknown: str) -> Markup:
    if name == "reason" and facet.value == NONE:
        on = query.kept == "yes"
        href = address("documents", **query.changed(kept=None if on else "yes", reason=(), after=0))
    else:
        chosen: tuple[str, ...] = getattr(query, name)
        on = facet.value in chosen
        values = tuple(v for v in chosen if v != facet.value) if on else (*chosen, facet.value)
        more = {"kept": None} if name == "reason" else {}
        href = address("documents", **query.changed(**{name: values}, **more, after=0))
    said = facet.value or unknown
    return element("a", said, element("span", whole(facet.documents)), href=href, aria_current="true" if on else None)


PAGE = Page(
    about="Documents by id, path, repository, words, phrase or regular expression, with source, language, license and "
    "the reason for removal.",
    query=DocumentsQuery,
    load=load,
    draw=draw,
    heading=lambda query, shown: "Documents",
    scripts=("documents.js",),
)
