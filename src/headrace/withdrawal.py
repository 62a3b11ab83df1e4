"""Withdraw documents after the fact: find them and the training steps that saw them, and list them for later runs.

The list is in the run folder and is added to the recipe's own ``withdrawn`` section whenever the recipe runs there.
Only verdicts and what follows from them are then rebuilt; of the tokens, only lists that change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import run_folder
from headrace.documents.store import fetch
from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.coordinating import coordinating
from headrace.recipe.schema import Recipe, Withdrawn
from headrace.select.verdicts.withdrawn import COLUMNS, named
from headrace.select.why.locate import locate
from headrace.sequence.provenance import rows_with
from headrace.sequence.store import open_sequence

_TOLD = ("id", "source", "origin_file", "origin_row", "license", "repo")


@dataclass(frozen=True)
class StageUse:
    """Where a stage's sequence contains withdrawn documents.

    Attributes:
        stage: the stage's name.
        rows: int64[n], rows of the sequence.
        documents: int64[n], the global row number of each one's document.
        batch: rows per step; None if no model is trained.
        steps: steps of the training; None if no model is trained.
        trained: whether the model is finished.
    """

    stage: str
    rows: np.ndarray
    documents: np.ndarray
    batch: int | None
    steps: int | None
    trained: bool

    def steps_of(self, documents: Sequence[int] | None = None) -> list[int]:
        """The steps, ascending, whose batches contain any of the documents, or any of the given ones."""
        if self.batch is None or self.steps is None:
            return []
        mine = self.rows if documents is None else self.rows[np.isin(self.documents, documents)]
        steps = np.unique(mine // self.batch)
        return [int(step) for step in steps if step < self.steps]


@dataclass(frozen=True)
class Withdrawal:
    """What is withdrawn, and what was trained on it.

    Attributes:
        withdrawn: the run's list, including the additions.
        documents: ``row`` and :data:`_TOLD` for each document.
        copies: rows of documents that were removed as copies of these, and may take their place.
        stages: the stages whose sequence contains any of them.
    """

    withdrawn: Withdrawn
    documents: list[dict[str, Any]]
    copies: list[int]
    stages: list[StageUse]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        told = [
            {**document, "stages": {use.stage: _used(use, [document["row"]]) for use in self.stages}}
            for document in self.documents
        ]
        stages = {use.stage: {**_used(use, None), "trained": use.trained} for use in self.stages}
        return {
            "withdrawn": self.withdrawn.model_dump(mode="json"),
            "documents": told,
            "copies": self.copies,
            "stages": stages,
        }


def _used(use: StageUse, documents: Sequence[int] | None) -> dict[str, Any]:
    mine = use.rows if documents is None else use.rows[np.isin(use.documents, documents)]
    return {"rows": np.unique(mine).tolist(), "steps": use.steps_of(documents)}


def withdraw(
    run: Path,
    documents: Sequence[str] = (),
    repos: Sequence[str] = (),
    licenses: Sequence[str] = (),
    copies: bool = False,
    dry_run: bool = False,
) -> Withdrawal:
    """Withdraw documents from a run, and find the training that saw them.

    Args:
        run: the run folder.
        documents: ids or their beginnings, ``source:file:row`` or ``row:NUMBER``.
        repos: repositories, as in the documents' column.
        licenses: licenses, as in the documents' column.
        copies: also withdraw what was removed as a copy of these, so that no copy takes their place.
        dry_run: only find them; the list is not changed.

    Raises:
        UserError: the folder is not a run, has no documents yet, or nothing matches one of the names.
    """
    recipe = run_folder.read_recipe(run)
    store = run_folder.artifact(run, "documents")
    rows = [row for document in documents for row in _located(store, document)]
    asked = Withdrawn(ids=_ids(store, rows), repos=tuple(repos), licenses=tuple(licenses))
    found = _rows_of(store, asked)
    beside = _copies(run, store, found)
    if copies and beside:
        asked = asked.combined_with(Withdrawn(ids=_ids(store, beside)))
        found, beside = _rows_of(store, asked), []
    told = [
        {"row": row, **document} for row, document in zip(found, fetch(store, found, _TOLD).to_pylist(), strict=True)
    ]
    withdrawn = run_folder.read_withdrawn(run).combined_with(asked)
    made = Withdrawal(withdrawn, told, beside, _stages(run, recipe, found))
    if not dry_run:
        with coordinating(run):
            run_folder.write_withdrawn(run, run_folder.read_withdrawn(run).combined_with(asked))
    return made


def _located(documents: Artifact, document: str) -> list[int]:
    rows = locate(documents, document.lower() if ":" not in document else document)
    if ":" not in document and len(set(_ids(documents, rows))) > 1:
        raise UserError("Several documents have ids that start like this.", document, "Give more digits.")
    return rows


def _ids(documents: Artifact, rows: Sequence[int]) -> tuple[str, ...]:
    return tuple(fetch(documents, rows, ["id"]).column("id").to_pylist()) if rows else ()


def _rows_of(documents: Artifact, withdrawn: Withdrawn) -> list[int]:
    """The global row numbers of the documents.

    Raises:
        UserError: one of the names matches nothing.
    """
    found: list[int] = []
    met: dict[str, set[str]] = {name: set() for name in COLUMNS}
    for shard in range(len(documents.shards)):
        table = pq.read_table(documents.shard_path(shard), columns=list(COLUMNS), use_threads=False)
        any_of = np.zeros(table.num_rows, dtype=bool)
        for column, mine in named(table, withdrawn):
            met[column].update(table.column(column).filter(pa.array(mine)).to_pylist())
            any_of |= mine
        found += (np.flatnonzero(any_of) + int(documents.row_offsets[shard])).tolist()
    for name, wanted, word in (("repo", withdrawn.repos, "repository"), ("license", withdrawn.licenses, "licence")):
        missing = sorted({*wanted} - met[name])
        if missing:
            raise UserError(
                f"No document has the {word} {missing[0]!r}.",
                str(documents.path),
                f"Spell it as in the column `{name}` of the documents.",
            )
    if not found:
        raise UserError("Nothing to withdraw.", "headrace withdraw", "Name documents, or use --repo or --license.")
    return found


def _copies(run: Path, documents: Artifact, rows: Sequence[int]) -> list[int]:
    """The rows of documents that were removed because one of the given rows is kept."""
    step = run_folder.read_graph(run).steps["verdicts"]
    folder = run / "artifacts" / step.name
    if not folder.is_dir():
        return []
    verdicts, wanted, found = Artifact.open(folder), set(rows), []
    for shard in range(len(verdicts.shards)):
        table = pq.read_table(verdicts.shard_path(shard), columns=["reason", "evidence"], use_threads=False)
        duplicate = np.flatnonzero(np.equal(table.column("reason").to_numpy(), "duplicate"))
        for row, evidence in zip(duplicate.tolist(), table.column("evidence").take(duplicate).to_pylist(), strict=True):
            if orjson.loads(evidence)["kept_row"] in wanted:
                found.append(row + int(documents.row_offsets[shard]))
    return sorted({*found} - wanted)


def _stages(run: Path, recipe: Recipe, documents: Sequence[int]) -> list[StageUse]:
    """The finished sequences that contain any of the documents."""
    graph, uses = run_folder.read_graph(run), []
    for stage in recipe.stages:
        folder = run / "artifacts" / graph.sequences[stage.name].name
        if not folder.is_dir():
            continue
        sequence = open_sequence(folder)
        rows, which = rows_with(sequence, np.array(documents, dtype=np.uint64))
        model = graph.models.get(stage.name)
        batch = stage.train.batch if model is not None else None
        steps = None if batch is None else stage.train.steps or len(sequence) // batch
        trained = model is not None and (run / "artifacts" / model.name).is_dir()
        if len(rows):
            uses.append(StageUse(stage.name, rows, which, batch, steps, trained))
    return uses
