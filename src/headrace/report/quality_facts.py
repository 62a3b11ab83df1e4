"""Facts about annotators, from the figures that the steps wrote; only the texts of examples are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from headrace.documents.store import fetch
from headrace.flow.artifact import Artifact
from headrace.report.excerpts import beginning
from headrace.report.facts import AnnotatorFacts, Place, Tenth
from headrace.report.latest import Key

OF_ANNOTATORS = ("annotator", "quality", "positive-documents")
"""Kinds of artifacts that are of an annotator."""


def quality_facts(
    artifacts: Mapping[Key, Artifact], kinds: Mapping[str, str], documents: Artifact | None, verdicts: Artifact | None
) -> list[AnnotatorFacts]:
    """What is known of each annotator, in recipe order; those that nothing is known of are left out.

    Args:
        artifacts: the run's, by kind and stage.
        kinds: the recipe's annotators with their kinds.
        documents: the documents.
        verdicts: their verdicts.
    """
    found = []
    for name, kind in kinds.items():
        trained, scored = artifacts.get(("annotator", name)), artifacts.get(("quality", name))
        if trained is None and scored is None:
            continue
        spread = None if scored is None else _read(scored, "spread.json")
        cuts: list[dict[str, Any]] = []
        by = None if verdicts is None else verdicts.manifest.inputs.get("quality")
        if verdicts is not None and scored is not None and by == scored.manifest.identity:
            cuts = list(verdicts.manifest.extra["quality"])
        found.append(
            AnnotatorFacts(
                name,
                kind,
                {} if trained is None else dict(trained.manifest.counts),
                None if trained is None else _read(trained, "figures.json"),
                spread,
                [] if spread is None or documents is None else _tenths(spread, documents),
                cuts,
            )
        )
    return found


def _read(artifact: Artifact, name: str) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(artifact.file_path(name).read_bytes())
    return value


def _tenths(spread: Mapping[str, Any], documents: Artifact) -> list[Tenth]:
    rows = [row for tenth in spread["tenths"] for row in tenth["examples"]]
    columns = ["id", "source", "origin_file", "origin_row", "text"]
    told = dict(zip(rows, fetch(documents, rows, columns).to_pylist(), strict=True)) if rows else {}
    places = {
        row: Place(one["id"], one["source"], f"{one['origin_file']}:{one['origin_row'] + 1}", beginning(one["text"])[0])
        for row, one in told.items()
    }
    return [
        Tenth(tenth["low"], tenth["high"], [places[row] for row in tenth["examples"]]) for tenth in spread["tenths"]
    ]
