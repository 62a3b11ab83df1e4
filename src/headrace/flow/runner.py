"""The coordinator: makes artifact after artifact, phase after phase, doing only what is missing."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact, Manifest
from headrace.flow.events import EventLog
from headrace.flow.executors import Executor, Request
from headrace.flow.step import Phase, Step
from headrace.flow.storage import disk_refusal, fsync_folder, read_json, write_json
from headrace.flow.task import TaskContext


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


def make(step: Step, run: Path, executor: Executor, log: EventLog, memory: int) -> Artifact:
    """Make one artifact whose inputs are published, or open it if it is there already."""
    final = run / "artifacts" / step.name
    if final.exists():
        log.emit("artifact", artifact=step.name, state="present")
        return Artifact.open(final)
    started = time.monotonic()
    log.emit("artifact", artifact=step.name, state="started")
    ctx = TaskContext(run, step, memory=memory)
    if not (ctx.folder / MANIFEST).exists():
        for phase in step.phases():
            do_phase(phase, ctx, executor, log)
        ctx.phase = ""
        collect(ctx, step.finish(ctx))
    publish(ctx, final)
    artifact = Artifact.open(final)
    seconds = round(time.monotonic() - started, 3)
    log.emit(
        "artifact", artifact=step.name, state="published", seconds=seconds, rows=artifact.rows, bytes=artifact.bytes
    )
    return artifact


def do_phase(phase: Phase, ctx: TaskContext, executor: Executor, log: EventLog) -> None:
    """Plan a phase unless that was done before, and do the tasks that have left no marker."""
    ctx.phase = phase.name
    path = ctx.folder / "plan" / f"{phase.name}.json"
    if not path.exists():
        write_json(path, phase.plan(ctx))
    specs = read_json(path)
    assert isinstance(specs, list)
    done = ctx.folder / "done" / phase.name
    names = {entry.name for entry in os.scandir(done)} if done.is_dir() else set()
    missing = [task for task in range(len(specs)) if f"{task:05d}.json" not in names]
    missing.sort(key=lambda task: -specs[task].get("size", 0))
    log.emit("phase", artifact=ctx.step.name, phase=phase.name, tasks=len(specs), done=len(specs) - len(missing))
    least = phase.memory or (lambda spec: 0)
    requests = [Request(ctx.step.name, phase.name, t, least(specs[t]), phase.exclusive) for t in missing]
    executor.map(requests, log)


def collect(ctx: TaskContext, manifest: dict[str, Any]) -> None:
    """Give the shards their final names and write the manifest. May be repeated after a kill at any point."""
    shards: list[dict[str, Any]] = []
    files: list[dict[str, Any]] = []
    for phase in ctx.step.phases():
        for marker in ctx.markers(phase.name):
            for entry in marker["files"]:
                if entry["name"].startswith("shards/"):
                    shards.append(entry)
                elif entry["name"].startswith("files/"):
                    files.append(entry)
    shards.sort(key=lambda entry: entry["name"])
    files.sort(key=lambda entry: entry["name"])
    final_shards = []
    for number, entry in enumerate(shards):
        name = f"{number:05d}{Path(entry['name']).suffix}"
        _move(ctx.folder / entry["name"], ctx.folder / name)
        final_shards.append({**entry, "name": name})
    final_files = []
    for entry in files:
        name = entry["name"].removeprefix("files/")
        (ctx.folder / name).parent.mkdir(parents=True, exist_ok=True)
        _move(ctx.folder / entry["name"], ctx.folder / name)
        final_files.append({k: v for k, v in entry.items() if k != "rows"} | {"name": name})
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


def _move(source: Path, target: Path) -> None:
    if source.exists():
        os.replace(source, target)
    elif not target.exists():
        raise FileNotFoundError(f"{source} is recorded as written but is gone")


def publish(ctx: TaskContext, final: Path) -> None:
    """Remove the scaffolding and rename the folder: from now on the artifact exists."""
    for name in ("scratch", "shards", "files", "at", "plan", "done"):
        shutil.rmtree(ctx.folder / name, ignore_errors=True)
    for left in ctx.folder.rglob(".*.tmp"):
        left.unlink()
    fsync_folder(ctx.folder)
    os.replace(ctx.folder, final)
    fsync_folder(final.parent)
