"""The number of reference documents: known for an earlier run, estimated for files as for a source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.planning.counts import estimate
from headrace.recipe.schema import Recipe

if TYPE_CHECKING:
    from headrace.select.duplicates.reference import EarlierRun

AGAINST = "deduplicate.against"
# Bytes of text per document if the number of documents is unknown.
DOCUMENT_BYTES = 4000


@dataclass(frozen=True)
class ReferenceCounts:
    """The size of a set of reference documents.

    Attributes:
        place: its place in the recipe.
        path: the path given there.
        run: whether it is an earlier run, whose counts are exact except for the bytes.
        documents: the documents that count.
        bytes: approximate bytes of their text.
        signed: bytes of these that must be read for signing.
    """

    place: str
    path: str
    run: bool
    documents: int
    bytes: int
    signed: int


def count_references(recipe: Recipe, run: Path | None, base: Path) -> tuple[ReferenceCounts, ...]:
    """The size of each entry of ``deduplicate.against``.

    Raises:
        UserError: a run is not finished or is damaged, or files cannot be found or read.
    """
    if not recipe.against:
        return ()
    from headrace.references import find_runs

    runs = find_runs(recipe, run)
    near = recipe.deduplicate is not None and recipe.deduplicate.near is not None
    found = []
    for k, source in enumerate(recipe.against):
        place, path = f"{AGAINST}.{k}", source.files[0].glob
        if k in runs:
            documents, size = _kept(runs[k])
            signed = size if near and runs[k].signatures is None else 0
            found.append(ReferenceCounts(place, path, True, documents, size, signed))
            continue
        counts = estimate(place, source, recipe, base)
        documents = counts.documents or round(counts.bytes / DOCUMENT_BYTES)
        found.append(ReferenceCounts(place, path, False, documents, counts.bytes, counts.bytes if near else 0))
    return tuple(found)


def _kept(run: EarlierRun) -> tuple[int, int]:
    """The documents that a run kept, and the bytes of their text, assuming they are as long as the others."""
    read = run.open("documents").manifest.counts.values()
    kept = sum(counts["kept"] for counts in run.open("verdicts").manifest.counts.values())
    documents, size = (sum(counts[key] for counts in read) for key in ("documents", "bytes"))
    return kept, round(size * kept / max(1, documents))
