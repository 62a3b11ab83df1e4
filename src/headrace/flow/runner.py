"""The coordinator: builds artifacts phase by phase, doing only what is missing.

Artifacts are started in the order of the flow, and the next one as soon as a worker is idle: independent artifacts fill
each other's gaps, such as the last tasks of a phase, or phases with a single task. No more are started than that, to
keep the scratch on disk at any time small.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, TASKS, Artifact, Manifest
from headrace.flow.damage import check_files, checking_inputs_on_error, discard_damaged, set_aside
from headrace.flow.events import EventLog
from headrace.flow.executors import Executor, Request
from headrace.flow.mirror import here, mirror_of
from headrace.flow.plans import write_plan
from headrace.flow.removal import Removal
from headrace.flow.reuse import lend_similar, reuse_tasks
from headrace.flow.step import Phase, Step
from headrace.flow.storage import digest_file, fsync_folder, write_json, write_sealed
from headrace.flow.store import Store
from headrace.flow.task import TaskContext, final_names


def make(
    steps: Sequence[Step],
    run: Path,
    executor: Executor,
    log: EventLog,
    memory: int,
    verify: bool = False,
    store: Store | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[Artifact]:
    """Build artifacts, or open those that exist.

    Args:
        steps: each after its inputs.
        run: the run folder.
        executor: runs the tasks.
        log: receives all events.
        memory: bytes for the coordinator's own data while planning and finishing.
        verify: read existing artifacts and compare their digests, instead of only checking that the files exist.
        store: artifacts of other runs are taken from it, and new ones are added to it.
        check: called before anything is recorded; raises if another coordinator has taken the run over.

    Returns:
        The artifacts, in the order of the steps.

    Raises:
        DamagedArtifact: an input is damaged, which shows when it is read; :mod:`headrace.flow.damage` rebuilds it.
        UserError, TaskFailed: see :meth:`headrace.flow.executors.Executor.wait`.
    """
    waiting = list(steps)
    making: dict[str, Iterator[list[Request]]] = {}
    contexts: dict[str, TaskContext] = {}
    at_work: dict[str, int] = {}  # tasks of the running phase
    made: dict[str, Artifact] = {}

    def advance(name: str) -> None:
        """Continue an artifact until it has tasks to wait for, or is published."""
        for requests in making[name]:
            if requests:
                at_work[name] = len(requests)
                executor.submit(requests)
                return
        del making[name], contexts[name]
        made[name] = Artifact.open(run / "artifacts" / name)

    with Removal(run) as removal:
        while waiting or making:
            unmade = {step.name for step in waiting} | making.keys()
            ready = [step for step in waiting if not any(need.name in unmade for need in step.inputs().values())]
            if ready and executor.idle:
                step = ready[0]
                waiting.remove(step)
                ctx = contexts[step.name] = TaskContext(run, step, memory=memory)
                making[step.name] = _make(step, ctx, log, removal, verify, store)
                advance(step.name)
                continue
            request, marker = executor.wait()
            check()
            contexts[request.artifact].mark_done(request.phase, {request.task: marker})
            at_work[request.artifact] -= 1
            if not at_work[request.artifact]:
                del at_work[request.artifact]
                advance(request.artifact)
    return [made[step.name] for step in steps]


def present(step: Step, run: Path, log: EventLog, verify: bool = False) -> bool:
    """Whether the step's artifact is published and intact. A damaged one is set aside.

    Args:
        step: the step that builds the artifact.
        run: the run folder.
        log: receives what was found.
        verify: read the files and compare their digests; otherwise only their sizes are compared.
    """
    final = run / "artifacts" / step.name
    here(final / MANIFEST)
    if not os.path.lexists(final):
        return False
    try:
        check_files(Artifact.open(final), read=verify)
        return True
    except UserError as damage:
        set_aside(final, damage, log)
        return False


def _make(
    step: Step, ctx: TaskContext, log: EventLog, removal: Removal, verify: bool, store: Store | None
) -> Iterator[list[Request]]:
    """Build one artifact whose inputs are published: yields the tasks of a phase, and continues when they are done."""
    run = ctx.run
    if present(step, run, log, verify):
        if ctx.folder.exists():  # killed when it had published the artifact
            removal.take(ctx.folder)
            removal.take_stored(ctx.folder)
        log.emit("artifact", artifact=step.name, state="present")
        if store is not None:
            store.give(run / "artifacts" / step.name)
        return
    final = run / "artifacts" / step.name
    if store is not None and store.take(step, final):
        log.emit("artifact", artifact=step.name, state="stored")
        return
    started = time.monotonic()
    log.emit("artifact", artifact=step.name, state="started")
    discard_damaged(step, ctx)
    if not (ctx.folder / MANIFEST).exists():
        for phase in step.phases():
            yield begin(phase, ctx, log, store)
            ctx.close()
        ctx.phase = ""
        with checking_inputs_on_error(ctx):
            told = step.finish(ctx)
        collect(step, ctx, told)
    publish(ctx, final, removal)
    if store is not None:
        store.give(final)
    artifact = Artifact.open(final)
    seconds = round(time.monotonic() - started, 3)
    log.emit(
        "artifact", artifact=step.name, state="published", seconds=seconds, rows=artifact.rows, bytes=artifact.bytes
    )


def begin(phase: Phase, ctx: TaskContext, log: EventLog, store: Store | None = None) -> list[Request]:
    """Plan a phase if it has not been planned; returns requests for the tasks without a marker."""
    ctx.phase = phase.name
    if not ctx.plan(phase.name).exists():
        with checking_inputs_on_error(ctx):
            tasks = phase.plan(ctx)
        write_plan(ctx.plan(phase.name), tasks)
    specs = ctx.specs(phase.name)
    done = ctx.done(phase.name)
    keys = {task: spec["key"] for task, spec in enumerate(specs) if "key" in spec and task not in done}
    places = [ctx.artifacts, *([store.artifacts] if store is not None else [])]
    taken = reuse_tasks(ctx, keys, places)
    ctx.mark_done(phase.name, taken)
    missing = [task for task in range(len(specs)) if task not in done and task not in taken]
    lend_similar(ctx, {task: specs[task]["like"] for task in missing if "like" in specs[task]}, places)
    missing.sort(key=lambda task: -specs[task].get("size", 0))
    log.emit(
        "phase",
        artifact=ctx.step.name,
        phase=phase.name,
        tasks=len(specs),
        done=len(specs) - len(missing),
        taken=len(taken),
    )
    least = phase.memory or (lambda spec: 0)
    return [
        Request(
            ctx.step.name, phase.name, task, least(specs[task]), phase.most and phase.most(specs[task]), phase.exclusive
        )
        for task in missing
    ]


def collect(step: Step, ctx: TaskContext, manifest: dict[str, Any]) -> None:
    """Give the shards their final names and write the manifest. Can be repeated after a kill at any point."""
    markers = [marker for phase in step.phases() for marker in ctx.markers(phase.name)]
    written = sorted((entry for marker in markers for entry in marker["files"]), key=lambda entry: entry["name"])
    names = final_names(written)
    mirror = mirror_of(ctx.folder)
    if mirror is not None:
        mirror.copy_published(ctx.folder, [entry for entry in written if entry["name"] in names], names)
    for name, final in names.items():
        (ctx.folder / final).parent.mkdir(parents=True, exist_ok=True)
        _move(ctx.folder / name, ctx.folder / final)
    shards = [_listed(entry, names, "rows") for entry in written if entry["name"].startswith("shards/")]
    files = [_listed(entry, names) for entry in written if entry["name"].startswith("files/")]
    files += _write_tasks(ctx, markers, names)
    extra = dict(manifest)
    counts = extra.pop("counts")
    inputs = {role: need.identity for role, need in step.inputs().items()}
    value = Manifest(
        step.kind,
        step.VERSION,
        step.identity,
        step.params(),
        inputs,
        shards,
        files,
        counts,
        step.stage,
        extra,
    )
    write_sealed(ctx.folder / MANIFEST, value.to_json())


def _listed(entry: dict[str, Any], names: dict[str, str], *more: str) -> dict[str, Any]:
    """A file as the manifest lists it."""
    return {"name": names[entry["name"]], **{key: entry[key] for key in (*more, "bytes", "digest")}}


def _write_tasks(ctx: TaskContext, markers: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """List the keyed tasks for other artifacts to reuse; returns the entry of the list, if there are any."""

    def published(marker: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**entry, "name": names[entry["name"]]} for entry in marker["files"] if entry["name"] in names]

    told = ("key", "like", "result")
    tasks = [
        {name: marker[name] for name in told if name in marker} | {"files": published(marker)}
        for marker in markers
        if "key" in marker
    ]
    if not tasks:
        return []
    path = ctx.folder / TASKS
    write_json(path, tasks)
    return [{"name": TASKS, "bytes": path.stat().st_size, "digest": digest_file(path)}]


def _move(source: Path, target: Path) -> None:
    if source.exists():
        os.replace(source, target)
    elif not target.exists() and mirror_of(target) is None:
        raise FileNotFoundError(f"{source} is recorded as written but is gone")


def publish(ctx: TaskContext, final: Path, removal: Removal) -> None:
    """Move the scaffolding away and rename the folder: from now on the artifact exists."""
    for name in ("scratch", "shards", "files", "at", "plan", "done", "verified"):
        removal.take(ctx.folder / name)
    for left in ctx.folder.rglob(".*.tmp"):
        left.unlink()
    fsync_folder(ctx.folder)
    os.replace(ctx.folder, final)
    fsync_folder(final.parent)
    removal.take_stored(ctx.folder)
