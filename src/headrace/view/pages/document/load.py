"""What is known about a document of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import Field

from headrace.documents.store import fetch
from headrace.documents.synthetic import ABOUT
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.recipe.schema import Near, Recipe
from headrace.report.facts import Hit
from headrace.report.hits import hits_in
from headrace.run_folder import reference_documents
from headrace.sequence.chat import turns_of
from headrace.view.page import Query
from headrace.view.pages.document.copies import Copies, copies_of
from headrace.view.pages.document.training import Trained, training_of
from headrace.view.side_by_side import Comparison, compare_documents, compare_rows
from headrace.view.target import Missing, Target
from headrace.view.texts import Piece, piece_of

MOST_TURNS = 8 << 20  # bytes of a conversation's turns that are read
MOST_HITS = 50  # a copy of a whole benchmark has more
MOST_META = 20_000  # characters of the record's other fields
Number = Annotated[int, Field(ge=0, lt=1 << 53)]


class Document(Query):
    """Which document, and which part of it."""

    row: Number
    at: Number = 0
    beside: Number | None = None
    copies: Number = 0
    places: Number = 0


@dataclass(frozen=True)
class Turn:
    """A turn of a conversation, as far as it is in the part that is shown."""

    role: str
    text: str


@dataclass(frozen=True)
class Benchmark:
    """What of a benchmark stands in the document: characters ``[start, end)``."""

    item: str
    start: int
    end: int
    overlap: float | None


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        row: the document's row.
        documents: how many there are.
        about: its columns but for text, meta and turns.
        license: its license, and how it was found; None if nothing states it.
        meta: the other fields of its record, as JSON that may be cut; None if there are none.
        text: a part of its text.
        turns: the same part as a conversation; None if it is none.
        measures: everything measured about it.
        decisions: what each filter and check says, as :func:`headrace.select.why.explain.decide_row`.
        verdict: likewise; None before the verdicts.
        benchmark: the part found in a benchmark.
        copies: its group of copies; None while it is looked for.
        beside: the row of the document that it is compared with; None if that is a reference document.
        comparison: both side by side.
        trained: by stage, where it is in the sequence; None while it is looked for.
        tokens: how many tokens it has; None if it was not tokenized.
        hits: the benchmark items in it, if it is removed for any.
        made: how a synthetic document was made (:data:`headrace.documents.synthetic.ABOUT`); None for others.
    """

    row: int
    documents: int
    about: dict[str, Any]
    license: tuple[str, str] | None
    meta: str | None
    text: Piece
    turns: list[Turn] | None
    measures: dict[str, Any]
    decisions: list[dict[str, Any]]
    verdict: dict[str, Any] | None
    benchmark: Benchmark | None
    copies: Copies | None
    beside: int | None
    comparison: Comparison | None
    trained: dict[str, Trained] | None
    tokens: int | None
    hits: list[Hit]
    made: dict[str, Any] | None


def load(target: Target, query: Document) -> Shown:
    """Look it up in the documents and their sidecars; the text is read as far as it is shown."""
    documents = opened(target, query.row)
    from headrace.select.why.explain import decide_row

    columns = ["id", "bytes", "source", "origin_file", "origin_row", "license", "repo", "path", "language"]
    about = fetch(documents, [query.row], columns).to_pylist()[0]
    piece = piece_of(documents, query.row, query.at)
    beside = sidecars(target)
    decisions, verdict = decide_row(target.recipe, beside, query.row)
    other, comparison = query.beside, None
    if other is None and verdict is not None:
        other, comparison = compared(target, query.row, verdict)
    elif other is not None and other != query.row:
        opened(target, other)
        comparison = compare_rows(documents, query.row, other, near_of(target.recipe))
    return Shown(
        query.row,
        documents.rows,
        about,
        _license(target, documents, query.row),
        _meta(documents, query.row),
        piece,
        _turns(documents, query.row, piece),
        _measures(beside, query.row),
        decisions,
        verdict,
        _benchmark(decisions),
        copies_of(target, query.row, query.copies),
        other if comparison is not None else None,
        comparison,
        training_of(target, query.row, query.places),
        _tokens(target, query.row) if verdict is None or verdict["keep"] else None,
        _hits(target, documents, query.row),
        _made(target, documents, query.row, about["source"]),
    )


def opened(target: Target, row: int) -> Artifact:
    """The documents that have a row.

    Raises:
        Missing: there is no such row.
    """
    documents = target.documents
    if documents is None or row >= documents.rows:
        count = 0 if documents is None else documents.rows
        raise Missing(f"There is no document {row:,}.", str(target.path), f"The run has {count:,} documents, from 0.")
    return documents


def sidecars(target: Target) -> dict[str, Artifact]:
    """The artifacts that :mod:`headrace.select.why.explain` takes, by kind."""
    found = {kind: made for (kind, stage), made in target.artifacts.items() if stage is None}
    beside = ("measure", "quality")
    return found | {f"{kind}-{name}": made for (kind, name), made in target.artifacts.items() if kind in beside}


def near_of(recipe: Recipe) -> Near:
    """How a recipe compares texts; the defaults if it does not."""
    return (recipe.deduplicate.near if recipe.deduplicate else None) or Near()


def compared(target: Target, row: int, verdict: dict[str, Any]) -> tuple[int | None, Comparison | None]:
    """The row of the document that one was removed for, and both side by side; no row if that is a reference document,
    and nothing if its text is gone, or there is none."""
    evidence, near = verdict["evidence"] or {}, near_of(target.recipe)
    kept, documents = evidence.get("kept_row"), target.documents
    if kept is None or documents is None:
        return None, None
    if "against" not in evidence:
        return kept, compare_rows(documents, row, kept, near)
    try:
        other = reference_documents(target.path, int(evidence["against"]))
        return None, compare_documents((documents, row), (other, kept), near)
    except (UserError, OSError, IndexError):  # the earlier run is gone, or has changed
        return None, None


def _license(target: Target, documents: Artifact, row: int) -> tuple[str, str] | None:
    from headrace.report.gather import declared
    from headrace.select.licences.columns import FOUND, stated

    sidecar = target.artifact("licences")
    if sidecar is not None:
        told = fetch(sidecar, [row]).to_pylist()[0]
    else:
        told = stated(fetch(documents, [row], ["source", "license"]), declared(target.recipe)).to_pylist()[0]
    return None if told["license"] is None else (told["license"], FOUND.get(told["found"], ""))


def _meta(documents: Artifact, row: int) -> str | None:
    text: str | None = fetch(documents, [row], ["meta"]).column(0)[0].as_py()
    if text is None or len(text) > MOST_META:
        return None if text is None else text[:MOST_META] + "…"
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_INDENT_2).decode()


def _made(target: Target, documents: Artifact, row: int, source: str) -> dict[str, Any] | None:
    if source not in target.recipe.synthetic:
        return None
    text: str | None = fetch(documents, [row], ["meta"]).column(0)[0].as_py()
    found: dict[str, Any] | None = None if text is None else orjson.loads(text).get(ABOUT)
    return found


def _turns(documents: Artifact, row: int, piece: Piece) -> list[Turn] | None:
    value = fetch(documents, [row], ["turns"]).column(0)[0]
    if not value.is_valid or len(value.as_buffer()) > MOST_TURNS:
        return None
    told = []
    for turn in turns_of(value.as_py()) or []:
        start, end = max(turn["start"], piece.start) - piece.start, min(turn["end"], piece.end) - piece.start
        if start < end or (turn["start"] == turn["end"] and 0 <= start <= len(piece.text)):
            told.append(Turn(turn["role"], piece.text[start : max(start, end)]))
    return told


def _measures(beside: dict[str, Artifact], row: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for kind, made in beside.items():
        if kind.startswith("measure"):
            told |= fetch(made, [row]).to_pylist()[0]
    return {name: value for name, value in told.items() if value is not None}


def _benchmark(decisions: list[dict[str, Any]]) -> Benchmark | None:
    found = next((one["measured"] for one in decisions if one["reason"] == "contaminated"), None)
    if found is None or found["start"] is None:
        return None
    return Benchmark(found["item"], found["start"], found["end"], found["overlap"])


def _hits(target: Target, documents: Artifact, row: int) -> list[Hit]:
    artifact = target.artifact("hits")
    return [] if artifact is None else hits_in(artifact, documents.locate(row)[0], row)[:MOST_HITS]


def _tokens(target: Target, row: int) -> int | None:
    from headrace.tokens.store import open_shard

    tokens, documents = target.artifact("tokens"), target.documents
    if tokens is None or documents is None:
        return None
    store = open_shard(tokens, documents.locate(row)[0])
    at = int(store.rows.searchsorted(row))
    if at == len(store.rows) or int(store.rows[at]) != row:
        return None
    return int(store.offsets[at + 1] - store.offsets[at])
