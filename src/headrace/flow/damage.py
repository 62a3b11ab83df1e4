"""Find files that changed after they were written, by their digests, and rebuild them.

A damaged artifact is moved to ``RUN/damaged`` and rebuilt. In an unfinished artifact, a task whose marker or files have
changed counts as not done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact, DamagedArtifact, Entry, flaw
from headrace.flow.events import EventLog
from headrace.flow.markers import mend, read_markers
from headrace.flow.mirror import Mirror, mirror_of
from headrace.flow.plans import read_plan
from headrace.flow.step import Step
from headrace.flow.storage import SealError, fsync_folder
from headrace.flow.task import TaskContext, final_names

DAMAGED = "damaged"
THREADS = 8  # hashing and reading release the GIL; eight threads hide the seeks of small files


def flaws(files: Iterable[tuple[Path, Entry]], read: bool = True) -> list[tuple[Path, str]]:
    """What is wrong with recorded files, in words (see :func:`headrace.flow.artifact.flaw`), in their order."""
    listed = list(files)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda one: flaw(one[0], one[1], read), listed)
        return [(path, wrong) for (path, _), wrong in zip(listed, found, strict=True) if wrong is not None]


def check_files(artifact: Artifact, read: bool) -> None:
    """Check that all files of an artifact exist with the recorded sizes and, with ``read``, the recorded bytes.

    Raises:
        DamagedArtifact: one does not.
    """
    found = flaws(((artifact.path / entry["name"], entry) for entry in artifact.entries), read)
    for path, wrong in found:
        raise DamagedArtifact(
            f"A finished artifact is damaged: {path.name} {wrong}.", str(path), artifact=artifact.path.name
        )


def set_aside(artifact: Path, damage: UserError, log: EventLog) -> None:
    """Move a damaged artifact out of the way, and report it."""
    target = move_to_damaged(artifact, artifact.parent.parent)
    log.notice(f"{damage.what} {artifact.name} has been moved to {target} and will be rebuilt.")


def move_to_damaged(folder: Path, run: Path) -> Path:
    """Move a folder into ``RUN/damaged`` under a name unused there; returns its new path."""
    away = run / DAMAGED
    away.mkdir(exist_ok=True)
    number = 1
    while (target := away / f"{folder.name}-{number}").exists():
        number += 1
    if mirror := mirror_of(folder):
        mirror.remove(folder)
    os.replace(folder, target)
    fsync_folder(folder.parent)
    return target


def rebuilding_damaged(attempt: Callable[[], None], run: Path, log: EventLog) -> None:
    """Call ``attempt`` until it succeeds, setting aside each artifact that turns out to be damaged.

    Raises:
        DamagedArtifact: an artifact is damaged again after it was rebuilt.
    """
    rebuilt: set[str] = set()
    while True:
        try:
            return attempt()
        except DamagedArtifact as damage:
            if damage.artifact in rebuilt or not (run / "artifacts" / damage.artifact).exists():
                raise
            rebuilt.add(damage.artifact)
            set_aside(run / "artifacts" / damage.artifact, damage, log)


def checking_inputs_on_error(ctx: TaskContext) -> AbstractContextManager[None]:
    """When the coordinator hits an unexpected error in the body, check first whether the inputs are damaged.

    Raises:
        DamagedArtifact: an input is damaged; otherwise the original error is raised.
    """
    return checking_on_error(lambda: map(ctx.input, ctx.step.inputs()))


@contextmanager
def checking_on_error(artifacts: Callable[[], Iterable[Artifact]]) -> Iterator[None]:
    """When the body raises an unexpected error, check first whether some artifacts are damaged.

    Raises:
        DamagedArtifact: one is damaged; otherwise the original error is raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception:
        for artifact in artifacts():
            check_files(artifact, read=True)
        raise


def discard_damaged(step: Step, ctx: TaskContext) -> None:
    """In an unfinished artifact, discard each plan and task whose files have changed."""
    for _, _, fix in list(find_damaged(step, ctx)):
        fix()
    ctx.close()


def find_damaged(step: Step, ctx: TaskContext) -> Iterator[tuple[Path, str, Callable[[], None]]]:
    """Find what has changed in the folder of an unfinished artifact.

    Yields:
        The file, what is wrong with it in words, and a function that makes the next run rebuild it.
    """
    mirror = mirror_of(ctx.folder)
    if (ctx.folder / MANIFEST).exists():  # killed while publishing: the rest may be gone
        if mirror is not None:
            return  # the store has all of it
        try:
            check_files(Artifact.open(ctx.folder), read=True)
        except UserError as damage:
            yield ctx.folder, damage.what, lambda: shutil.rmtree(ctx.folder)
        return
    recorded: list[tuple[Entry, Callable[[], None]]] = []
    for phase in step.phases():
        if _is_damaged(ctx.plan(phase.name)):
            yield ctx.plan(phase.name), "has changed since it was written", ctx.plan(phase.name).unlink
        journal = ctx.journal(phase.name)
        markers = read_markers(journal)
        if markers is None:
            continue
        if markers.damaged:
            yield journal, "has lines that have changed since they were written", partial(mend, journal)
        tasks = sorted(markers.tasks)
        for task, marker in zip(tasks, markers.read(tasks), strict=True):
            recorded += [(entry, partial(ctx.mark_undone, phase.name, task)) for entry in marker["files"]]
    # A kill may have come after some had been given their final names.
    names = final_names(entry for entry, _ in recorded)

    def lies(entry: Entry) -> Path:
        first, final = ctx.folder / entry["name"], ctx.folder / names.get(str(entry["name"]), str(entry["name"]))
        return first if first.exists() else final

    if mirror is not None:
        kept = in_store(mirror, ctx.folder, [entry for entry, _ in recorded if not lies(entry).exists()])
        recorded = [(entry, fix) for entry, fix in recorded if entry["name"] not in kept]
    fixes = {lies(entry): fix for entry, fix in recorded}
    for path, wrong in flaws((lies(entry), entry) for entry, _ in recorded):
        yield path, wrong, fixes[path]


def in_store(mirror: Mirror, folder: Path, entries: list[Entry]) -> set[str]:
    """The names of those files that tasks wrote that the store has, by its list, or where that may be behind by asking
    for each."""
    if not entries:
        return set()
    listed = mirror.listed(folder)

    def has(entry: Entry) -> bool:
        path = folder / entry["name"]
        return listed.get(mirror.key(path, entry["digest"])) == entry["bytes"] or mirror.holds(path, entry)

    with ThreadPoolExecutor(THREADS) as pool:
        return {str(entry["name"]) for entry, there in zip(entries, pool.map(has, entries), strict=True) if there}


def _is_damaged(plan: Path) -> bool:
    try:
        found = read_plan(plan)
        found.specs(range(found.tasks))
    except FileNotFoundError:
        return False
    except SealError:
        return True
    return False
