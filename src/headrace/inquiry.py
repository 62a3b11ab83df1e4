"""What happened to a document of a run: find it by id or origin, explain every decision, and follow it to its rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace import run_folder
from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.damage import checking_on_error
from headrace.recipe.schema import Near, Recipe
from headrace.select.why.locate import locate
from headrace.select.why.unread import find_unread

# Reasons whose evidence names another document of the run, to be shown next to this one.
PAIRED = ("duplicate", "holdout")


def ask(run: Path, document: str, context: int | None = 3) -> dict[str, Any]:
    """Every decision about a document of a run, with evidence, and where the document went.

    Args:
        run: the run folder.
        document: an id, ``source:file:row``, or ``row:NUMBER``, see :func:`headrace.select.why.locate.locate`.
        context: equal lines shown around each difference from a duplicate; None shows all.

    Returns:
        For a row that could not be read, ``{"quarantined": its entry}``. Otherwise as
        :func:`headrace.select.why.explain.explain_row`, plus ``"copies"``: the other rows with this id; ``"pair"``: the
        document that this one is a copy of, side by side, or None; ``"stages"``: stage -> its positions in the
        sequence; ``"inspired_by"``: of a synthetic document, see :func:`inspiration`. For a copy of a reference
        document also ``"reference"``, its place in the recipe; ``"pair"`` is None if its text is gone.

    Raises:
        UserError: the folder is not a run, has no documents yet, or no such document.
    """
    from headrace.select.why.explain import explain_pair, explain_row

    recipe = run_folder.read_recipe(run)
    artifacts, sequences = _finished(run)
    if "documents" not in artifacts:
        raise UserError(
            "The run has no documents yet.", str(run), "Run the recipe first, at least with --until documents."
        )
    documents = artifacts["documents"]
    unread = find_unread(documents, document)
    if unread is not None:
        return {"quarantined": unread}
    row, *copies = _find(documents, document)
    told = explain_row(recipe, artifacts, row) | {"copies": copies, "pair": None, "stages": {}}
    told["inspired_by"] = inspiration(documents, told["document"]["meta"])
    verdict = told["verdict"]
    if verdict is not None and verdict["reason"] in PAIRED and verdict["evidence"].get("kept_row") is not None:
        near = (recipe.deduplicate.near if recipe.deduplicate else None) or Near()
        told["pair"] = explain_pair(documents, row, verdict["evidence"]["kept_row"], near, context)
    if verdict is not None and verdict["reason"] == "reference":
        told["reference"], told["pair"] = _reference(run, recipe, documents, row, verdict["evidence"], context)
    for stage, artifact in sequences.items():
        told["stages"][stage] = _placements(artifact, row)
    return told


def inspiration(documents: Artifact, meta: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The documents that inspired a synthetic one; none for others.

    Args:
        documents: the documents artifact.
        meta: the document's other fields.

    Returns:
        For each ``row``, ``id``, ``source``, ``origin_file``, ``origin_row`` and ``license``, where it is in the run.
    """
    about = (meta or {}).get("synthetic")
    columns = ["id", "source", "origin_file", "origin_row", "license"]
    found = []
    for seed in about.get("seeds", []) if isinstance(about, dict) else []:
        rows = _find(documents, seed)
        found.append({"row": rows[0], **fetch(documents, rows[:1], columns).to_pylist()[0]})
    return found


def _reference(
    run: Path, recipe: Recipe, documents: Artifact, row: int, evidence: dict[str, Any], context: int | None
) -> tuple[str, dict[str, Any] | None]:
    """Where the reference document is that a document is a copy of, and both side by side if its text is available."""
    from headrace.select.why.explain import compare_texts

    number = int(evidence["against"])
    place = recipe.against[number].files[0].glob
    near = (recipe.deduplicate.near if recipe.deduplicate else None) or Near()
    try:
        other = fetch(run_folder.reference_documents(run, number), [evidence["kept_row"]], ["text"])
    except (UserError, OSError, IndexError):  # the earlier run is gone, or has changed
        return place, None
    texts = [table.column("text")[0].as_py() for table in (fetch(documents, [row], ["text"]), other)]
    return place, compare_texts(texts[0], texts[1], near, context)


def ask_text(run: Path, text: str, source: str = "", path: str | None = None) -> dict[str, Any]:
    """What would be decided about a text that is not in the run, and the most similar documents in the run.

    Args:
        run: the run folder.
        text: the text.
        source: the source whose overrides apply.
        path: the file's path, whose suffix gives the format.

    Raises:
        UserError: the folder is not a run, or the recipe has no such source.
    """
    from headrace.select.why.explain import explain_text

    recipe = run_folder.read_recipe(run)
    if source and source not in recipe.sources:
        raise UserError(f"There is no source {source!r}.", "--source", f"The sources are {', '.join(recipe.sources)}.")
    artifacts, _ = _finished(run)
    return explain_text(recipe, text, source, path=path, documents=artifacts.get("documents"), run=run)


def _finished(run: Path) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """The finished artifacts by kind, and the finished sequences by stage, with files checked against their digests
    when read.
    """
    single: dict[str, Artifact] = {}
    sequences: dict[str, Artifact] = {}
    for step in run_folder.read_graph(run).all():
        folder = run / "artifacts" / step.name
        if not folder.is_dir():
            continue
        if step.kind == "sequence" and step.stage is not None:
            sequences[step.stage] = Artifact.open(folder, verify=True)
        elif step.kind in ("measure", "quality") or step.stage is None:
            name = f"{step.kind}-{step.stage}" if step.stage else step.kind
            single[name] = Artifact.open(folder, verify=True)
    return single, sequences


def _find(documents: Artifact, document: str) -> list[int]:
    """Global row numbers of the document that a text names; several may have the same content.

    Raises:
        UserError: there is none, or the start of an id matches several.
    """
    # Only the columns that name documents are read: checking digests would read everything.
    with checking_on_error(lambda: [documents]):
        rows = locate(replace(documents, check=None), document.lower() if ":" not in document else document)
    ids = set(fetch(documents, rows, ["id"]).column("id").to_pylist())
    if len(ids) > 1 and ":" not in document:
        raise UserError(f"{len(ids)} documents have ids that start like this.", document, "Give more digits.")
    return rows


def _placements(artifact: Artifact, row: int) -> list[dict[str, Any]]:
    """A document's positions in a sequence, in training order."""
    from headrace.sequence.provenance import find_rows
    from headrace.sequence.store import open_sequence

    with checking_on_error(lambda: [artifact]):  # reads only the segments
        return [placement.to_json() for placement in find_rows(open_sequence(artifact.path), row)]
