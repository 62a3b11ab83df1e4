"""The coordinator: makes artifacts, phase after phase, doing only what is missing.

Artifacts are begun in the order of the flow, and the next one as soon as a worker has nothing to do: what does not
need each other fills each other's gaps, such as the last tasks of a phase and phases of a single task. No more are
begun than that, so that no more scratch lies on disk at once than must.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, TASKS, Artifact, Manifest
from headrace.flow.events import EventLog
from headrace.flow.executors import Executor, Request
from headrace.flow.removal import Removal
from headrace.flow.reuse import take_over
from headrace.flow.step import Phase, Step
from headrace.flow.storage import digest_file, disk_refusal, fsync_folder, read_json, write_json
from headrace.flow.task import TAKEN, TaskContext


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run folder: two coordinators at once would undo each other's work.

    Raises:
        UserError: the folder cannot be made or written, or another run holds it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(run / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        mend = "Choose another --out or mend its permissions."
        raise disk_refusal(error, run) or UserError(
            f"The run folder cannot be made: {error}.", str(run), mend
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        other = os.read(handle, 32).decode().strip()
        os.close(handle)
        raise UserError(
            f"Another headrace run (process {other}) is using this folder.", str(run), "Wait for it, or stop it first."
        ) from None
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def locked(run: Path) -> bool:
    """Whether a coordinator is at work in the folder now."""
    try:
        handle = os.open(run / ".lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)


def make(steps: Sequence[Step], run: Path, executor: Executor, log: EventLog, memory: int) -> list[Artifact]:
    """Make artifacts, or open those that are there already.

    Args:
        steps: each after its inputs.
        run: the run folder.
        executor: does the tasks.
        log: hears of everything.
        memory: bytes for the coordinator's own data, as it plans and finishes.

    Returns:
        The artifacts, in the order of the steps.

    Raises:
        UserError, TaskFailed: see :meth:`headrace.flow.executors.Executor.wait`.
    """
    waiting = list(steps)
    making: dict[str, Iterator[list[Request]]] = {}
    at_work: dict[str, int] = {}  # tasks of the phase at work
    made: dict[str, Artifact] = {}

    def advance(name: str) -> None:
        """Go on with an artifact until it has tasks to wait for, or is published."""
        for requests in making[name]:
            if requests:
                at_work[name] = len(requests)
                executor.submit(requests)
                return
        del making[name]
        made[name] = Artifact.open(run / "artifacts" / name)

    with Removal(run) as removal:
        while waiting or making:
            unmade = {step.name for step in waiting} | making.keys()
            ready = [step for step in waiting if not any(need.name in unmade for need in step.inputs().values())]
            if ready and executor.idle:
                step = ready[0]
                waiting.remove(step)
                making[step.name] = _make(step, run, log, memory, removal)
                advance(step.name)
                continue
            done = executor.wait().artifact
            at_work[done] -= 1
            if not at_work[done]:
                del at_work[done]
                advance(done)
    return [made[step.name] for step in steps]


def _make(step: Step, run: Path, log: EventLog, memory: int, removal: Removal) -> Iterator[list[Request]]:
    """Make one artifact whose inputs are published: yields the tasks of a phase, and goes on when they are done."""
    final = run / "artifacts" / step.name
    if final.exists():
        log.emit("artifact", artifact=step.name, state="present")
        return
    started = time.monotonic()
    log.emit("artifact", artifact=step.name, state="started")
    ctx = TaskContext(run, step, memory=memory)
    if not (ctx.folder / MANIFEST).exists():
        for phase in step.phases():
            yield begin(phase, ctx, log)
        ctx.phase = ""
        collect(ctx, step.finish(ctx))
    publish(ctx, final, removal)
    artifact = Artifact.open(final)
    seconds = round(time.monotonic() - started, 3)
    log.emit(
        "artifact", artifact=step.name, state="published", seconds=seconds, rows=artifact.rows, bytes=artifact.bytes
    )


def begin(phase: Phase, ctx: TaskContext, log: EventLog) -> list[Request]:
    """Plan a phase unless that was done before; the requests for the tasks that have left no marker."""
    ctx.phase = phase.name
    path = ctx.folder / "plan" / f"{phase.name}.json"
    if not path.exists():
        write_json(path, phase.plan(ctx))
    specs = read_json(path)
    assert isinstance(specs, list)
    done = ctx.done(phase.name)
    keys = {task: spec["key"] for task, spec in enumerate(specs) if "key" in spec and task not in done}
    taken = take_over(ctx, keys, [ctx.artifacts])
    if taken:
        markers = {str(task): marker for task, marker in (ctx.taken(phase.name) | taken).items()}
        write_json(ctx.folder / "done" / phase.name / TAKEN, markers)
    missing = [task for task in range(len(specs)) if task not in done and task not in taken]
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


def collect(ctx: TaskContext, manifest: dict[str, Any]) -> None:
    """Give the shards their final names and write the manifest. May be repeated after a kill at any point."""
    markers = [marker for phase in ctx.step.phases() for marker in ctx.markers(phase.name)]
    written = sorted((entry for marker in markers for entry in marker["files"]), key=lambda entry: entry["name"])
    shards = [entry for entry in written if entry["name"].startswith("shards/")]
    files = [entry for entry in written if entry["name"].startswith("files/")]
    names = {entry["name"]: f"{n:05d}{Path(entry['name']).suffix}" for n, entry in enumerate(shards)}
    names |= {entry["name"]: entry["name"].removeprefix("files/") for entry in files}
    for name, final in names.items():
        (ctx.folder / final).parent.mkdir(parents=True, exist_ok=True)
        _move(ctx.folder / name, ctx.folder / final)
    final_shards = [_listed(entry, names, "rows") for entry in shards]
    final_files = [_listed(entry, names) for entry in files] + _write_tasks(ctx, markers, names)
    extra = dict(manifest)
    counts = extra.pop("counts")
    step = ctx.step
    inputs = {role: need.identity for role, need in step.inputs().items()}
    value = Manifest(
        step.kind,
        step.VERSION,
        step.identity,
        step.params(),
        inputs,
        final_shards,
        final_files,
        counts,
        step.stage,
        extra,
    )
    write_json(ctx.folder / MANIFEST, value.to_json())


def _listed(entry: dict[str, Any], names: dict[str, str], *more: str) -> dict[str, Any]:
    """A file as the manifest lists it."""
    return {"name": names[entry["name"]], **{key: entry[key] for key in (*more, "bytes", "digest")}}


def _write_tasks(ctx: TaskContext, markers: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    """List the keyed tasks for other artifacts to take over; the entry of the list, if there are any."""

    def published(marker: dict[str, Any]) -> list[dict[str, Any]]:
        return [{**entry, "name": names[entry["name"]]} for entry in marker["files"] if entry["name"] in names]

    tasks = [{**marker, "files": published(marker)} for marker in markers if "key" in marker]
    if not tasks:
        return []
    path = ctx.folder / TASKS
    write_json(path, tasks)
    return [{"name": TASKS, "bytes": path.stat().st_size, "digest": digest_file(path)}]


def _move(source: Path, target: Path) -> None:
    if source.exists():
        os.replace(source, target)
    elif not target.exists():
        raise FileNotFoundError(f"{source} is recorded as written but is gone")


def publish(ctx: TaskContext, final: Path, removal: Removal) -> None:
    """Move the scaffolding away and rename the folder: from now on the artifact exists."""
    for name in ("scratch", "shards", "files", "at", "plan", "done"):
        removal.take(ctx.folder / name)
    for left in ctx.folder.rglob(".*.tmp"):
        left.unlink()
    fsync_folder(ctx.folder)
    os.replace(ctx.folder, final)
    fsync_folder(final.parent)
