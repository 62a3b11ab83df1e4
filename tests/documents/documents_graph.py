"""The graph of one Documents step over RUN/sources.json, for workers, and a coordinator for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from headrace.documents.inventory import read_inventory, take_inventory
from headrace.documents.step import Documents
from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.executors.local import LocalExecutor
from headrace.flow.lock import lock
from headrace.flow.runner import make
from headrace.recipe.schema import DocumentsConfig, Source


def _recipe(run: Path) -> tuple[dict[str, Source], DocumentsConfig]:
    value = orjson.loads((run / "sources.json").read_bytes())
    sources = {name: Source.model_validate(source) for name, source in value["sources"].items()}
    return sources, DocumentsConfig.model_validate(value["documents"])


def targets(run: Path) -> list[Documents]:
    """The graph, as a worker rebuilds it."""
    sources, config = _recipe(run)
    return [Documents(read_inventory(sources, run), config)]


def inline(run: Path, sources: dict[str, Any], **config: Any) -> Artifact:
    """The same in this process, where a test can reach what the tasks use."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "sources.json").write_bytes(orjson.dumps({"sources": sources, "documents": config}))
    read, settings = _recipe(run)
    step = Documents(take_inventory(read, 1, run, run), settings)
    log = EventLog(run)
    try:
        return make([step], run, InlineExecutor(run, [step], 1 << 30), log, 1 << 30)[0]
    finally:
        log.close()


def build(run: Path, sources: dict[str, Any], workers: int = 1, memory: int = 1 << 30, **config: Any) -> Artifact:
    """Make the documents of some sources."""
    run.mkdir(parents=True, exist_ok=True)
    (run / "sources.json").write_bytes(orjson.dumps({"sources": sources, "documents": config}))
    read, settings = _recipe(run)
    step = Documents(take_inventory(read, 1, run, run), settings)
    with lock(run):
        log = EventLog(run)
        executor = LocalExecutor(run, "documents_graph:targets", workers, memory, log)
        try:
            return make([step], run, executor, log, memory)[0]
        finally:
            executor.close()
            log.close()
