"""What became of files after they were written: found by their digests, and mended by doing that work again.

A damaged artifact is set aside in ``RUN/damaged`` and made anew. In an artifact in the making, a task whose marker or
files are not as it left them counts as not done.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import UserError
from headrace.flow.artifact import MANIFEST, Artifact, DamagedArtifact, Entry, flaw
from headrace.flow.events import EventLog
from headrace.flow.storage import Spoilt, fsync_folder, read_sealed
from headrace.flow.task import TaskContext, final_names

DAMAGED = "damaged"
THREADS = 8  # hashing and reading release the GIL; as many hide the seeks of small files


def flaws(files: Iterable[tuple[Path, Entry]], read: bool = True) -> list[tuple[Path, str]]:
    """What is wrong with recorded files, as :func:`headrace.flow.artifact.flaw` says it, in their order."""
    listed = list(files)
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda one: flaw(one[0], one[1], read), listed)
        return [(path, wrong) for (path, _), wrong in zip(listed, found, strict=True) if wrong is not None]


def sound(artifact: Artifact, read: bool) -> None:
    """See that all files of an artifact are there, as long as recorded and, with ``read``, of the recorded bytes.

    Raises:
        DamagedArtifact: they are not.
    """
    found = flaws(((artifact.path / entry["name"], entry) for entry in artifact.entries), read)
    for path, wrong in found:
        raise DamagedArtifact(
            f"A finished artifact is damaged: {path.name} {wrong}.", str(path), artifact=artifact.path.name
        )


def set_aside(artifact: Path, damage: UserError, log: EventLog) -> None:
    """Move a damaged artifact out of the way, and say so."""
    target = move_away(artifact, artifact.parent.parent)
    log.notice(f"{damage.what} {artifact.name} is set aside in {target} and made anew.")


def move_away(folder: Path, run: Path) -> Path:
    """Move a folder to ``RUN/damaged`` under a name of its own there, which is returned."""
    away = run / DAMAGED
    away.mkdir(exist_ok=True)
    number = 1
    while (target := away / f"{folder.name}-{number}").exists():
        number += 1
    os.replace(folder, target)
    fsync_folder(folder.parent)
    return target


def mending(attempt: Callable[[], None], run: Path, log: EventLog) -> None:
    """Do something that makes artifacts, and again when one turns out to be damaged, which is set aside before.

    Raises:
        DamagedArtifact: one is damaged once more after it was made anew.
    """
    mended: set[str] = set()
    while True:
        try:
            return attempt()
        except DamagedArtifact as damage:
            if damage.artifact in mended or not (run / "artifacts" / damage.artifact).exists():
                raise
            mended.add(damage.artifact)
            set_aside(run / "artifacts" / damage.artifact, damage, log)


@contextmanager
def blaming_inputs(ctx: TaskContext) -> Iterator[None]:
    """When the coordinator meets something unexpected in the body, look first whether the inputs are as they were made.

    Raises:
        DamagedArtifact: one is not. Otherwise what was met is raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception:
        for role in ctx.step.inputs():
            sound(ctx.input(role), read=True)
        raise


def take_back(ctx: TaskContext) -> None:
    """Of an artifact in the making, take back each plan and each task whose files are not as they were left."""
    if not ctx.folder.is_dir():
        return
    if (ctx.folder / MANIFEST).exists():  # killed on its way out: the rest may be gone
        try:
            sound(Artifact.open(ctx.folder), read=True)
        except UserError:
            shutil.rmtree(ctx.folder)
        return
    recorded: list[tuple[str, int, Entry]] = []
    for phase in ctx.step.phases():
        done = ctx.folder / "done" / phase.name
        for path in (ctx.plan(phase.name), *done.glob("*.json")):
            _unless_sound(path)
        taken = ctx.taken(phase.name)
        for task in sorted(ctx.done(phase.name)):
            marker = taken.get(task) or ctx.marker(phase.name, task)
            recorded += [(phase.name, task, entry) for entry in marker["files"]]
    # A kill may have come when some were given their final names.
    names = final_names(entry for _, _, entry in recorded)

    def lies(entry: Entry) -> Path:
        first, final = ctx.folder / entry["name"], ctx.folder / names.get(str(entry["name"]), str(entry["name"]))
        return first if first.exists() else final

    whose = {lies(entry): (phase, task) for phase, task, entry in recorded}
    for path, _ in flaws((lies(entry), entry) for _, _, entry in recorded):
        ctx.take_back(*whose[path])


def _unless_sound(path: Path) -> None:
    """Remove a sealed file that is not as it was written."""
    try:
        read_sealed(path)
    except FileNotFoundError:
        return
    except Spoilt:
        path.unlink()
