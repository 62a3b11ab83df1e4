"""What happened to a document of a run: found by id or origin, explained decision by decision, followed to its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace import pipeline
from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.recipe.schema import Near, Recipe

# Reasons whose evidence names another document, to be shown beside this one.
PAIRED = ("duplicate", "holdout")


def ask(run: Path, document: str, context: int | None = 3) -> dict[str, Any]:
    """Every decision about a document of a run, with evidence, and where it went.

    Args:
        run: the run folder.
        document: its id (32 hexadecimal digits, or their beginning), or ``source:file:row`` as in ``origin_file`` and
            ``origin_row``.
        context: equal lines shown around each difference from a duplicate; None shows all.

    Returns:
        As :func:`headrace.select.explain.explain_row`, and ``"copies"``: the other rows with this id; ``"pair"``: the
        document that this one is a copy of, side by side, or None; ``"stages"``: stage -> stretches of its sequence.

    Raises:
        UserError: it is no run, it has no documents yet, or no such document.
    """
    from headrace.select.explain import explain_pair, explain_row

    recipe = pipeline.read_recipe(run)
    artifacts, sequences = _finished(run)
    if "documents" not in artifacts:
        raise UserError("The run has no documents yet.", str(run), "Run the recipe first, at least --until documents.")
    documents = artifacts["documents"]
    row, *copies = _find(documents, document, recipe)
    told = explain_row(recipe, artifacts, row) | {"copies": copies, "pair": None, "stages": {}}
    verdict = told["verdict"]
    if verdict is not None and verdict["reason"] in PAIRED and verdict["evidence"].get("kept_row") is not None:
        near = (recipe.deduplicate.near if recipe.deduplicate else None) or Near()
        told["pair"] = explain_pair(documents, row, verdict["evidence"]["kept_row"], near, context)
    for stage, artifact in sequences.items():
        told["stages"][stage] = _placements(artifact, row)
    return told


def ask_text(run: Path, text: str, source: str = "", path: str | None = None) -> dict[str, Any]:
    """What would be decided about a text that is not in the run, and the documents of the run nearest to it.

    Args:
        run: the run folder.
        text: the text.
        source: the source whose overrides count.
        path: the file's path: its suffix tells the format.

    Raises:
        UserError: it is no run, or the recipe has no such source.
    """
    from headrace.select.explain import explain_text

    recipe = pipeline.read_recipe(run)
    if source and source not in recipe.sources:
        raise UserError(f"There is no source {source!r}.", "--source", f"The sources are {', '.join(recipe.sources)}.")
    artifacts, _ = _finished(run)
    return explain_text(recipe, text, source, path=path, documents=artifacts.get("documents"))


def _finished(run: Path) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """The finished artifacts by kind, and the finished sequences by stage."""
    single: dict[str, Artifact] = {}
    sequences: dict[str, Artifact] = {}
    for step in pipeline.read_graph(run).all():
        folder = run / "artifacts" / step.name
        if not folder.is_dir():
            continue
        if step.kind == "sequence" and step.stage is not None:
            sequences[step.stage] = Artifact.open(folder)
        elif step.stage is None:
            single[step.kind] = Artifact.open(folder)
    return single, sequences


def _find(documents: Artifact, document: str, recipe: Recipe) -> list[int]:
    """Dense rows of the documents that a text names; the first is the one that is meant.

    Raises:
        UserError: there is none, or the beginning of an id fits several.
    """
    source, colon, rest = document.partition(":")
    if colon:
        file, _, number = rest.rpartition(":")
        if not file or not number.isdigit():
            raise UserError("A document is named by its id or by source:file:row.", document, "Rows count from 0.")
        if source not in recipe.sources:
            mend = f"The sources are {', '.join(recipe.sources)}."
            raise UserError(f"There is no source {source!r}.", document, mend)
        found = _rows(documents, {"source": source, "origin_file": file, "origin_row": int(number)})
        if not found:
            raise UserError("There is no such document.", document, _hint(documents, source, file))
        return found
    text = document.lower()
    if not 4 <= len(text) <= 32 or not all(digit in "0123456789abcdef" for digit in text):
        mend = "Give 32 hexadecimal digits (at least the first 4), or source:file:row."
        raise UserError("This is not a document's id.", document, mend)
    found = _rows(documents, {"id": text})
    ids = set(fetch(documents, found, ["id"]).column("id").to_pylist()) if found else set()
    if len(ids) > 1:
        raise UserError(f"{len(ids)} documents' ids begin so.", document, "Give more digits.")
    if not found:
        raise UserError("There is no document of this id.", document, "Ids are in the documents' column `id`.")
    return found


def _rows(documents: Artifact, wanted: dict[str, str | int]) -> list[int]:
    """Dense rows whose columns have the wanted values (ids: begin with it), shard by shard."""
    import pyarrow.parquet as pq

    found: list[int] = []
    for index in range(len(documents.shards)):
        with pq.ParquetFile(documents.shard_path(index)) as file:
            table = file.read(columns=list(wanted))
        mask = pa.chunked_array([pa.repeat(True, table.num_rows)])
        for column, value in wanted.items():
            values = table.column(column)
            hit = pc.starts_with(values, pattern=value) if column == "id" else pc.equal(values, value)
            mask = pc.and_(mask, hit)
        base = int(documents.row_offsets[index])
        found += [base + at for at in pc.indices_nonzero(mask).to_pylist()]
    return found


def _hint(documents: Artifact, source: str, file: str) -> str:
    """Whether the file is there at all, and how many rows it gave."""
    rows = len(_rows(documents, {"source": source, "origin_file": file}))
    if rows:
        return f"{file} gave {rows} documents; rows count from 0, and bad ones are in the quarantine."
    return f"No document of {source} came from {file!r}; file names are in the documents' column `origin_file`."


def _placements(artifact: Artifact, row: int) -> list[dict[str, Any]]:
    """Where a document lies in a sequence, in the order of training."""
    from headrace.sequence.provenance import find_rows
    from headrace.sequence.store import open_sequence

    return [placement.to_json() for placement in find_rows(open_sequence(artifact.path), row)]
