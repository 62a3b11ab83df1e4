"""Run a recipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headrace
from headrace.environment import data_memory, hardware, versions
from headrace.errors import UserError
from headrace.flow.artifact import Artifact, DamagedArtifact
from headrace.flow.events import EventLog, Listener
from headrace.flow.executors.engine import LOCAL, Engine
from headrace.flow.mirror import local_path, mirror_of
from headrace.flow.notices import notices_to
from headrace.flow.step import Step
from headrace.flow.storage import explaining_os_errors, local, replacing
from headrace.graph import build_graph
from headrace.recipe.functions import keep_copy
from headrace.recipe.load import sealed, with_filters
from headrace.recipe.schema import Recipe
from headrace.run_folder import GRAPH, RECIPE, read_graph, with_withdrawn

if TYPE_CHECKING:
    from headrace.flow.store import Store
    from headrace.train.edits import OnChange

TRAINED = ("model", "evaluation", "samples")  # kinds of artifacts that need torch


def run(
    recipe: Recipe,
    out: Path | str,
    workers: int | None = None,
    memory: int | None = None,
    until: str | None = None,
    listener: Listener | None = None,
    check_input: bool = False,
    verify: bool = False,
    store: Path | str | None = None,
    filters: Sequence[Callable[..., Any]] = (),
    on_change: OnChange | None = None,
    engine: Engine = LOCAL,
) -> Path | None:
    """Build everything that a recipe describes, doing only what is missing.

    Args:
        recipe: from :func:`headrace.load_recipe`, or built in code.
        out: the run folder, or its URL in an object store.
        workers: worker processes, on a cluster those of each node; by default one per available core. With 0,
            everything runs in this process.
        memory: bytes of data in all workers together, on a cluster in those of each node; by default half of what is
            free.
        until: the artifact to stop at, such as ``verdicts`` or ``sequence-stage1``.
        listener: called with every event as it happens.
        check_input: read all input again instead of trusting size and change time.
        verify: read finished artifacts again and rebuild damaged ones; otherwise only the existence of their files is
            checked, and each is read and compared when something is first built from it.
        store: a folder shared by runs: artifacts of other runs are taken from it, and new ones are added to it.
        filters: your own functions that take a :class:`headrace.Document` and return whether to keep it; what they
            reject is removed as ``filter:<the function's name>``.
        on_change: what to do with a stage that was being trained when its recipe changed: ``stop``; ``accept``: go on
            from there; ``branch``: begin it anew beside the old. None accepts, unless its sequence has changed.
        engine: where the tasks are done; this machine by default.

    Returns:
        The report, or None if the run stopped before the end of the recipe.

    Raises:
        UserError: something the user can fix. Finished work is kept and not redone.
        TaskFailed: a bug; the traceback is in the run's logs.
    """
    from headrace.flow.store import Store

    if filters:
        recipe = with_filters(recipe, filters)
    folder = local_path(out)
    if store is not None and mirror_of(folder) is not None:
        fix = "Leave out --store: variants of a recipe run at the same URL reuse each other's work."
        raise UserError("A run at a URL uses no store.", f"--store {store}", fix)
    workers = engine.default_workers if workers is None else workers
    with explaining_os_errors(folder):
        shared = None if store is None else Store(local(store), folder)
        log = _run(recipe, folder, workers, memory, until, listener, check_input, verify, shared, on_change, engine)
        if until:
            return None
        from headrace.report.build import write_report

        with notices_to(log.notice):
            try:
                return write_report(folder)
            except Exception:
                try:
                    sound_artifacts(folder)
                except DamagedArtifact:
                    _run(recipe, folder, workers, memory, until, listener, check_input, True, shared, on_change, engine)
                    return write_report(folder)
                raise


def _run(
    recipe: Recipe,
    folder: Path,
    workers: int | None,
    memory: int | None,
    until: str | None,
    listener: Listener | None,
    check_input: bool,
    verify: bool,
    store: Store | None,
    on_change: OnChange | None,
    engine: Engine,
) -> EventLog:
    """Build the artifacts; returns the closed log."""
    from headrace.flow.coordinating import coordinating
    from headrace.flow.damage import rebuilding_damaged
    from headrace.flow.runner import make
    from headrace.train.installed import check_installed
    from headrace.train.possible import check_possible

    if recipe.model is not None and (until is None or until.lower().startswith(TRAINED)):
        check_installed(stage.train for stage in recipe.stages)
        check_possible(recipe)
    notes = look_at_tokenizer(recipe, until, folder)
    with coordinating(folder) as lease:
        log = EventLog(folder, listener)
        started = time.monotonic()
        try:
            told = {"version": headrace.__version__, "versions": versions(), "hardware": hardware()}
            memory = memory or (data_memory() if engine == LOCAL else None)
            log.emit("run", recipe=recipe.name, workers=workers, memory=memory, **told)
            with notices_to(log.notice):
                for note in notes:
                    log.notice(note)
                wanted = _prepare(recipe, folder, until, check_input)
                with engine.start(folder, GRAPH, workers, memory, log) as start:

                    def build(steps: list[Step]) -> None:
                        executor = start(steps)
                        try:
                            for part in by_expectation(recipe, steps):
                                make(part, folder, executor, log, memory or data_memory(), verify, store, lease.check)
                                compare(recipe, wanted, folder, log)
                        finally:
                            executor.close()

                    rebuilding_damaged(lambda: _make(wanted, folder, log, on_change, build), folder, log)
            log.emit("finished", seconds=round(time.monotonic() - started, 3))
        except KeyboardInterrupt:
            log.emit("stopped", reason="interrupted")
            raise
        except Exception as error:
            with suppress(OSError):  # the error itself reports a full disk
                log.emit("failed", message=str(error))
            raise
        finally:
            log.close()
    return log


def _prepare(recipe: Recipe, folder: Path, until: str | None, check_input: bool) -> list[Step]:
    """Write what workers rebuild the graph from; returns the wanted steps."""
    from headrace.preflight import preflight
    from headrace.references import take_input
    from headrace.train.edits import read_edits

    recipe = with_withdrawn(recipe, folder)
    graph = build_graph(recipe, *take_input(recipe, folder, check_input), edits=read_edits(folder))
    wanted = graph.until(until) if until else graph.all()
    for _, function in recipe.functions():
        keep_copy(function, folder)
    with replacing(folder / RECIPE) as path:
        path.write_bytes(sealed(recipe))
    if recipe.functions() and any(not (folder / "artifacts" / step.name).exists() for step in wanted):
        preflight(folder)
    return wanted


def _make(
    wanted: list[Step], folder: Path, log: EventLog, on_change: OnChange | None, build: Callable[[list[Step]], None]
) -> None:
    """Build what is wanted; models only once everything else exists and is known to fit them."""
    from headrace.train.edits import edit
    from headrace.train.step import Model

    build([step for step in wanted if step.kind not in TRAINED])
    models = [step for step in wanted if isinstance(step, Model)]
    for model in models:
        model.check_steps(folder)
    for model in models:
        edited, told = (False, None) if (folder / "artifacts" / model.name).exists() else edit(folder, model, on_change)
        if told is not None:
            log.notice(told)
        if edited:
            break
        build([step for step in wanted if step.kind in TRAINED and step.stage == model.stage])
    else:
        return
    # The graph has changed from that stage on.
    names = {f"{step.kind}-{step.stage}" for step in wanted}
    again = [step for step in read_graph(folder).all() if f"{step.kind}-{step.stage}" in names]
    _make(again, folder, log, on_change, build)


def by_expectation(recipe: Recipe, steps: list[Step]) -> list[list[Step]]:
    """Steps in the order of the flow, split after each whose counts the recipe has expectations about."""
    from headrace.report.departures import COUNTED, expects

    cuts = [i + 1 for i, step in enumerate(steps) if step.kind in COUNTED] if expects(recipe) else []
    return [steps[a:b] for a, b in pairwise([0, *cuts, len(steps)]) if a < b]


def compare(recipe: Recipe, steps: list[Step], folder: Path, log: EventLog) -> None:
    """Report departures of what is built so far from the recipe's expectations.

    Raises:
        UserError: there is a departure, and the recipe asks to stop.
    """
    from headrace.report.corpus_facts import source_facts
    from headrace.report.departures import COUNTED, departures, expects
    from headrace.report.found_counts import needs_lengths
    from headrace.report.length_facts import SIDECARS, with_lengths

    if not expects(recipe):
        return
    folders = {step.kind: folder / "artifacts" / step.name for step in steps if step.kind in (*COUNTED, *SIDECARS)}
    made = {kind: Artifact.open(path) for kind, path in folders.items() if path.is_dir()}
    if "documents" not in made:
        return
    counted = {kind: made[kind] for kind in COUNTED if kind in made}
    sources = [source_facts(name, **counted) for name in recipe.sources]
    if needs_lengths(recipe) and "verdicts" in made:
        sources = with_lengths(sources, made["documents"], made["verdicts"], *map(made.get, SIDECARS))
    said = departures(recipe, sources)
    for text in said:
        log.notice(text)
    if said and recipe.expect.stop:
        raise UserError(
            "The run departs from what its recipe expects:",
            "expect",
            "Fix the data or the recipe, widen the range, or remove expect.stop to only be warned.",
            tuple(said),
        )


def look_at_tokenizer(recipe: Recipe, until: str | None = None, run: Path | None = None) -> list[str]:
    """Read the tokenizer's file, if there is one, before any work; returns what the user should know, in sentences.

    Args:
        recipe: the recipe.
        until: the artifact to stop at; those before the tokenizer need none.
        run: the run folder.

    Raises:
        UserError: it cannot be used, lacks a required token, or has more tokens than the model.
    """
    from headrace.model.presets import resolve
    from headrace.tokens.training import look_at_file

    if recipe.tokenizer is not None and recipe.tokenizer.ids is not None and recipe.model is not None:
        resolve(recipe.model, recipe.tokenizer.ids)
    if not recipe.stages or recipe.tokenizer is None or recipe.tokenizer.file is None:
        return []
    if until is not None and not until.lower().startswith(("token", "sequence", *TRAINED)):
        return []
    size, notes = look_at_file(recipe, run)
    if recipe.model is not None:
        resolve(recipe.model, size)
    return notes


def sound_artifacts(run: Path) -> None:
    """Check all finished artifacts of a run's recipe against their digests.

    Raises:
        DamagedArtifact: one has changed since it was built.
        UserError: the folder is not a run.
    """
    from headrace.flow.damage import check_files

    for step in read_graph(run).all():
        if (run / "artifacts" / step.name).is_dir():
            check_files(Artifact.open(run / "artifacts" / step.name), read=True)
