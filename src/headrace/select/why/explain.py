"""Every decision about one document, with measurements, limits and evidence: the content of `headrace why`.

All results are plain JSON values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from headrace.documents.maps import Maps
from headrace.documents.normalise import normaliser
from headrace.documents.readers.base import Bad
from headrace.documents.sink import Row, table_of
from headrace.documents.store import fetch
from headrace.flow.artifact import Artifact
from headrace.recipe.columns import DOCUMENT
from headrace.recipe.schema import Decontaminate, Near, Recipe
from headrace.select.contamination.benchmarks import list_benchmarks, read_items
from headrace.select.contamination.index import build
from headrace.select.contamination.limits import limit_of, same_shape, telling, whole_or_much
from headrace.select.contamination.step import search
from headrace.select.measures.step import measure
from headrace.select.measures.user import measured
from headrace.select.sidecar import ARROW
from headrace.select.verdicts.document_filters import column
from headrace.select.verdicts.filters import applied, code_sources, findings
from headrace.select.verdicts.licences import refusal
from headrace.select.verdicts.rules import findings as findings_of

EXCERPT = 400  # characters of evidence shown
COPIES = frozenset({"duplicate", "holdout"})  # reasons whose evidence names another document


def explain_row(recipe: Recipe, artifacts: Mapping[str, Artifact], row: int) -> dict[str, Any]:
    """What was decided about a document of a run.

    Args:
        recipe: the run's recipe.
        artifacts: the finished ones by kind: ``documents`` and, if they exist, ``measures``, ``measure-<name>``
            (user-defined), ``quality-<name>``, ``contamination``, ``duplicates`` and ``verdicts``.
        row: the document's global row number.

    Returns:
        ``{"document": {"row", its columns except text, "characters"}, "decisions": [...], "verdict": ...}``. A decision
        is ``{"reason", "measured", "limit", "removes"}``, and for contamination ``excerpt``. The verdict is null if
        there are no verdicts yet, otherwise ``{"keep", "reason", "evidence", "split"}``. For a document removed in
        favor of another, ``"pair"`` is the result of :func:`explain_pair`, otherwise null.

    Raises:
        IndexError: there is no such row.
    """
    document = fetch(artifacts["documents"], [row]).to_pylist()[0]
    text = document.pop("text")
    found, verdict = decide_row(recipe, artifacts, row)
    decisions = [_excerpt(decision, text) for decision in found]
    for name in ("meta", "turns"):
        document[name] = None if document[name] is None else orjson.loads(document[name])
    about = {"row": row, **document, "characters": len(text)}
    pair = None
    if verdict is not None and verdict["reason"] in COPIES:
        pair = explain_pair(artifacts["documents"], row, verdict["evidence"]["kept_row"], _near(recipe))
    return {"document": about, "decisions": decisions, "verdict": verdict, "pair": pair}


def decide_row(
    recipe: Recipe, artifacts: Mapping[str, Artifact], row: int
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The decisions and the verdict of :func:`explain_row`, but for contamination's excerpt: no text is read.

    Raises:
        IndexError: there is no such row.
    """
    document = fetch(artifacts["documents"], [row], list(DOCUMENT))
    source = document.column("source")[0].as_py()
    decisions: list[dict[str, Any]] = []
    beside = {kind: fetch(made, [row]) for kind, made in artifacts.items() if kind.startswith("measure")}
    if "measures" in beside:
        decisions += _filters(recipe, beside["measures"], source)
    if all(f"measure-{name}" in beside for name in recipe.measures):
        decisions += _own(recipe, document, beside)
    if "licences" in artifacts:
        decisions += _licence(recipe, fetch(artifacts["licences"], [row]).to_pylist()[0], source)
    if "contamination" in artifacts and recipe.decontaminate is not None:
        decisions.append(_contamination(fetch(artifacts["contamination"], [row]), recipe.decontaminate))
    verdict = None
    if "verdicts" in artifacts:
        columns = ["keep", "reason", "evidence", "split"]
        verdict = fetch(artifacts["verdicts"], [row], columns).to_pylist()[0]
        verdict["evidence"] = None if verdict["evidence"] is None else orjson.loads(verdict["evidence"])
    decisions += _scores(recipe, artifacts, row, verdict)
    if "duplicates" in artifacts:
        group = fetch(artifacts["duplicates"], [row]).to_pylist()[0]
        removes = verdict["reason"] in ("duplicate", "reference") if verdict else None
        decisions.append({"reason": "duplicate", "measured": group, "limit": None, "removes": removes})
    return decisions, verdict


def explain_text(
    recipe: Recipe,
    text: str,
    source: str = "",
    path: str | None = None,
    language: str | None = None,
    documents: Artifact | None = None,
    run: Path = Path(),
) -> dict[str, Any]:
    """What would be decided about a text that is not in a run.

    Args:
        recipe: the recipe to apply.
        text: the text as in its file; it is normalized here, and changed by user-defined maps.
        source: the source whose overrides and maps apply; without one, the filters' own limits and the maps for all.
        path: the file's path; its suffix gives the format.
        language: the text's language, if the path does not give it.
        documents: the documents to search for duplicates; all of them are read.
        run: the run folder, which holds the code of user-defined functions.

    Returns:
        As for :func:`explain_row`, with ``"nearest"``: the most similar documents, nearest first, each with ``row, id,
        source, origin_file, origin_row, exact, jaccard, estimate, agrees``; null without documents. If a map fails on
        the text, ``{"quarantined": the entry}``.
    """
    told = _read(recipe, text, source, path, language, run)
    if isinstance(told, Bad):
        entry = {"source": source, "file": path or "", "line": told.row + 1}
        return {"quarantined": {**entry, "error": told.error, "excerpt": told.excerpt}}
    [batch] = table_of([told]).to_batches()
    identity, normal = batch["id"][0].as_py(), told[0].decode()
    beside = {"measures": measure(batch)}
    for name, own in recipe.measures.items():
        schema = pa.schema([(name, ARROW[str(own.type)]), ("error", pa.string())])
        beside[f"measure-{name}"] = measured(own.load(run), str(own.type), batch, schema, None)
    decisions = _filters(recipe, beside["measures"], source) + _own(recipe, batch, beside)
    config = recipe.decontaminate
    if config is not None:
        items = read_items(list_benchmarks(config), recipe.documents.normalise)
        index = build(items, config.ngram, config.unit == "code", config.substring, config.shapes)
        decisions.append(_excerpt(_contamination(search(batch, index), config), normal))
    about = {"row": None, "id": identity, "source": source or None, "path": path, "characters": len(normal)}
    neighbours = None if documents is None else _neighbours(normal, identity, documents, _near(recipe))
    return {"document": about, "decisions": decisions, "verdict": None, "pair": None, "nearest": neighbours}


def _read(recipe: Recipe, text: str, source: str, path: str | None, language: str | None, run: Path) -> Row | Bad:
    """The document that a text becomes when read, or what is wrong with it."""
    normalise, config = normaliser(recipe.documents.normalise), recipe.documents
    data = normalise(text).encode()
    row: Row = (data, source, path or "", 0, None, None, path, language, None, None)
    chat = bool(source) and recipe.sources[source].is_chat
    maps = Maps([m.load(run) for m in config.map if m.of(source, chat)], normalise, None, config.max_document)
    for first, second in [*maps.add(row), *maps.end()]:
        if isinstance(second, Bad):
            return second
        assert not isinstance(first, str)  # bad rows come with the file's name
        row = first
    return row


def explain_pair(documents: Artifact, row: int, other: int, near: Near, context: int | None = 3) -> dict[str, Any]:
    """Two documents side by side.

    Args:
        documents: the documents artifact.
        row, other: their global row numbers.
        near: defines shingles.
        context: equal lines kept around a difference; None keeps all.

    Returns:
        ``{"jaccard", "same_cleaned", "rows"}``: the exact Jaccard similarity, whether the cleaned texts are equal, and
        the lines as :class:`headrace.select.why.side_by_side.Row`.
    """
    a, b = fetch(documents, [row, other], ["text"]).column("text").to_pylist()
    return compare_texts(a, b, near, context)


def compare_texts(a: str, b: str, near: Near, context: int | None = 3) -> dict[str, Any]:
    """Two texts side by side, as in :func:`explain_pair`."""
    from headrace.select.duplicates.jaccard import pair_jaccard
    from headrace.select.why.nearest import cleaned
    from headrace.select.why.side_by_side import compare

    x, y = cleaned(a), cleaned(b)
    rows = [row._asdict() for row in compare(a, b, context)]
    jaccard = pair_jaccard(x, y, near.ngram, near.unit == "words")
    return {"jaccard": jaccard, "same_cleaned": np.array_equal(x, y), "rows": rows}


def _near(recipe: Recipe) -> Near:
    """How the recipe compares texts; the defaults if it does not."""
    return (recipe.deduplicate.near if recipe.deduplicate else None) or Near()


def _filters(recipe: Recipe, measures: pa.Table, source: str) -> list[dict[str, Any]]:
    code_in = code_sources(recipe)
    if not source and recipe.filters.code is not None and recipe.filters.code.sources is None:
        code_in |= {source}
    return [finding._asdict() for finding in findings(measures, source, applied(recipe), code_in)]


def _own(recipe: Recipe, document: pa.Table | pa.RecordBatch, beside: dict[str, pa.Table]) -> list[dict[str, Any]]:
    """What user-defined measures and rules say about one document."""
    told: list[dict[str, Any]] = []
    for name in recipe.measures:
        value, error = (values[0].as_py() for values in beside[f"measure-{name}"].columns)
        if error is not None:
            told.append({"reason": f"failed:{name}", "measured": {"error": error}, "limit": None, "removes": True})
        else:
            told.append({"reason": name, "measured": value, "limit": None, "removes": None})
    rules = [(rule, recipe.expression(rule)) for rule in recipe.filters.rules]
    names = recipe.rule_columns()
    if not all(name in DOCUMENT or name in recipe.measures or "measures" in beside for name in names):
        return told
    table = {name: column(name, document, beside) for name in names}
    return told + [finding._asdict() for finding in findings_of(rules, table)]


def _scores(
    recipe: Recipe, artifacts: Mapping[str, Artifact], row: int, verdict: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """What each annotator says about a document; the one by which documents are kept decides."""
    keep, told = recipe.quality.keep, []
    decides = None if keep is None else recipe.quality.named(keep.annotator)
    for name in recipe.quality.annotators:
        if (made := artifacts.get(f"quality-{name}")) is None:
            continue
        measured = {"annotator": name, **fetch(made, [row]).to_pylist()[0]}
        limit, removes = None, None
        if keep is not None and name == decides:
            limit = keep.model_dump(mode="json", exclude={"annotator"}, exclude_none=True)
            removes = verdict["reason"] == "quality" if verdict and verdict["reason"] in (None, "quality") else None
        told.append({"reason": "quality", "measured": measured, "limit": limit, "removes": removes})
    return told


def _licence(recipe: Recipe, found: dict[str, Any], source: str) -> list[dict[str, Any]]:
    rule = recipe.sources[source].licenses if source in recipe.sources else None  # the recipe may have changed
    if rule is None:
        return []
    limit = rule.model_dump(mode="json", exclude_defaults=True) or None
    return [
        {"reason": "license", "measured": found, "limit": limit, "removes": refusal(found["license"], rule) is not None}
    ]


def _contamination(found: pa.Table, config: Decontaminate) -> dict[str, Any]:
    copied, renamed = bool(whole_or_much(found, config)[0]), bool(same_shape(found, config)[0])
    measured = telling(found.to_pylist()[0], renamed and not copied)
    return {
        "reason": "contaminated",
        "measured": measured,
        "limit": limit_of(measured, config),
        "removes": copied or renamed,
    }


def _excerpt(decision: dict[str, Any], text: str) -> dict[str, Any]:
    """A decision about contamination with what was found in the text; others as they are."""
    if decision["reason"] != "contaminated":
        return decision
    start, end = decision["measured"]["start"], decision["measured"]["end"]
    return {**decision, "excerpt": None if start is None else text[start : min(end, start + EXCERPT)]}


def _neighbours(text: str, identity: str, documents: Artifact, near: Near) -> list[dict[str, Any]]:
    from headrace.select.why.nearest import nearest

    found = nearest(text, documents, near)
    columns = ["id", "source", "origin_file", "origin_row"]
    places = fetch(documents, [neighbour.row for neighbour in found], columns).to_pylist()
    return [
        {**asdict(neighbour), **place, "exact": place["id"] == identity}
        for neighbour, place in zip(found, places, strict=True)
    ]
