"""Reuse finished tasks of other artifacts: a task's key covers everything that determines its bytes.

A task that writes only published files may state its ``key`` in its spec (:func:`task_key`). If the same task was done
before, for an artifact of the same kind with another identity, its files are linked, so only tasks with new keys run:
adding or changing a source redoes that source and nothing else. Files are checked against their digests first, so no
damage is copied. A task may also state what it is ``like``: if its key is new, a file of a task that stated the same is
lent to it, and it takes from that what it can use (:meth:`TaskContext.like`).

Each artifact lists its keyed tasks in ``tasks.json``: ``[{"key", "like", "result", "files": [{"as", "name", "rows",
"bytes", "digest"}]}]``, where ``as`` is the name the task gave the file, with ``{task}`` for its number.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import xxhash

from headrace.flow.artifact import MANIFEST, TASKS
from headrace.flow.markers import read_markers
from headrace.flow.mirror import here, mirror_of
from headrace.flow.storage import SealError, digest_file, fsync_folder, read_sealed, replacing

if TYPE_CHECKING:
    from headrace.flow.identity import Identified
    from headrace.flow.task import TaskContext

THREADS = 4  # hashing and reading release the GIL; more threads only wait for memory


class Finished(NamedTuple):
    """A finished task.

    Attributes:
        folder: the artifact's folder, finished or not.
        marker: the task's marker, without its files.
        files: its published files; ``name`` is the path within the folder.
    """

    folder: Path
    marker: dict[str, Any]
    files: list[dict[str, Any]]


def task_key(step: Identified, *what: Any) -> str:
    """The key of a task: 32 hexadecimal digits.

    Args:
        step: the task's step; its kind and version are part of the key, its parameters are not.
        what: JSON values: everything else that determines the task's files and result. Use digests of what is read,
            never row or shard numbers, which change when something is added before.
    """
    return xxhash.xxh3_128_hexdigest(orjson.dumps([step.kind, step.VERSION, what], option=orjson.OPT_SORT_KEYS))


def reuse_tasks(ctx: TaskContext, keys: dict[int, str], places: Sequence[Path]) -> dict[int, dict[str, Any]]:
    """Reuse tasks that were done before.

    Args:
        ctx: the context of the phase.
        keys: task number -> key, for the tasks that are missing.
        places: folders of artifacts to search.

    Returns:
        Task number -> marker, for tasks whose files are now in the folder of ``ctx``.
    """
    known = _finished(places, ctx, "key", keys.values())

    def one(task: int) -> dict[str, Any] | None:
        for finished in known.get(keys[task], ()):
            with suppress(FileNotFoundError):  # it is being removed or published
                files = [_take(finished.folder, entry, ctx.folder, task) for entry in finished.files]
                if None not in files:
                    return {**finished.marker, "files": files}
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        markers = dict(zip(keys, pool.map(one, keys), strict=True))
    taken = {task: marker for task, marker in markers.items() if marker is not None}
    for folder in {(ctx.folder / entry["name"]).parent for marker in taken.values() for entry in marker["files"]}:
        if folder.exists():
            fsync_folder(folder)
    return taken


def lend_similar(ctx: TaskContext, likes: dict[int, str], places: Sequence[Path]) -> None:
    """Put next to each task a file of a finished task that is like it; the newest, if there are several.

    Args:
        ctx: the context of the phase.
        likes: task number -> what it is like, for tasks that write one file.
        places: folders of artifacts to search.
    """
    known = _finished(places, ctx, "like", likes.values())
    for task, like in likes.items():
        for finished in reversed(known.get(like, [])):
            [entry] = finished.files
            with suppress(FileNotFoundError):
                if _take(finished.folder, {**entry, "as": str(ctx.like_file(task))}, ctx.folder, task):
                    break


def _finished(places: Sequence[Path], ctx: TaskContext, by: str, wanted: Iterable[str]) -> dict[str, list[Finished]]:
    """Finished tasks that have one of the wanted values in a field, oldest first."""
    found: dict[str, list[Finished]] = {value: [] for value in wanted}
    folders = []
    for folder in (folder for place in places if found for folder in place.glob(f"{ctx.step.kind}-*")):
        with suppress(FileNotFoundError):  # another run set it aside
            folders.append((folder.stat().st_mtime_ns, folder))
    for _, folder in sorted(folders):
        if folder != ctx.folder:
            for finished in _tasks_of(folder):
                if finished.marker.get(by) in found:
                    found[finished.marker[by]].append(finished)
    return found


def _tasks_of(folder: Path) -> Iterator[Finished]:
    """The keyed tasks of an artifact, finished or not; none if it cannot be trusted."""
    with suppress(FileNotFoundError, SealError, orjson.JSONDecodeError, KeyError, TypeError, StopIteration):
        if folder.suffix == ".partial":
            journals = [read_markers(path) for path in folder.glob("done/*.jsonl")]
            markers: Any = [one for journal in journals if journal for one in journal.read(sorted(journal.tasks))]
        else:
            manifest = read_sealed(folder / MANIFEST)
            listed = next(entry for entry in manifest["files"] if entry["name"] == TASKS)
            data = here(folder / TASKS, listed).read_bytes()
            markers = orjson.loads(data) if xxhash.xxh3_128_hexdigest(data) == listed["digest"] else []
        for marker in markers:
            if "key" in marker:
                files = [entry for entry in marker.pop("files") if "as" in entry]  # others are scratch
                yield Finished(folder, marker, files)


def _take(folder: Path, entry: dict[str, Any], into: Path, task: int) -> dict[str, Any] | None:
    """Link a file under the name that the task gives it; returns its entry, or None if its bytes have changed."""
    name = entry["as"].replace("{task}", f"{task:05d}")
    mirror = mirror_of(into)
    if mirror is not None and not name.startswith("scratch/"):  # its digest is compared when it is fetched
        mirror.copy(folder / entry["name"], into / name, entry["digest"])
        return {**entry, "name": name}
    here(folder / entry["name"], entry)
    place(folder / entry["name"], into / name)
    if digest_file(into / name) != entry["digest"]:
        (into / name).unlink()
        return None
    return {**entry, "name": name}


def place(source: Path, target: Path) -> None:
    """Make a finished file appear at a second path: as a hard link, or as a copy where links are not supported.

    Raises:
        FileNotFoundError: the source is gone.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # left by a kill
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)
