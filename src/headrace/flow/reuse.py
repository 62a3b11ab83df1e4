"""Taking over finished tasks of other artifacts: a task's key covers all that determines its bytes.

A task that leaves published files only may state its ``key`` in its spec (:func:`task_key`). When the same was done
before, for an artifact of the same kind but another identity, the files are linked and only tasks with new keys are
worked on: a source that was added or changed redoes itself and nothing else. What is found is checked against its
digest first: no damage is taken over.

Each artifact lists its keyed tasks in ``tasks.json``: ``[{"key", "result", "files": [{"as", "name", "rows", "bytes",
"digest"}]}]``, where ``as`` is the name that the task gave the file, with ``{task}`` for its number.
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
from headrace.flow.storage import Spoilt, digest_file, fsync_folder, read_sealed, replacing

if TYPE_CHECKING:
    from headrace.flow.step import Step
    from headrace.flow.task import TaskContext

THREADS = 4  # hashing and reading release the GIL; more wait for memory


class Finished(NamedTuple):
    """A finished task.

    Attributes:
        folder: the artifact's, or that in which it is being made.
        result: what the task returned.
        files: its published files; ``name`` is where one lies in the folder.
    """

    folder: Path
    result: Any
    files: list[dict[str, Any]]


def task_key(step: Step, *what: Any) -> str:
    """The key of a task: 32 hexadecimal digits.

    Args:
        step: whose task it is; its kind and version are part of the key, its parameters are not.
        what: JSON values, everything else that determines the task's files and its result. Digests of what is read,
            never row or shard numbers: these change when something is added before.
    """
    return xxhash.xxh3_128_hexdigest(orjson.dumps([step.kind, step.VERSION, what], option=orjson.OPT_SORT_KEYS))


def take_over(ctx: TaskContext, keys: dict[int, str], places: Sequence[Path]) -> dict[int, dict[str, Any]]:
    """Take over what was done before.

    Args:
        ctx: of the phase.
        keys: task number -> key, of the tasks that are missing.
        places: folders of artifacts.

    Returns:
        Task number -> its marker, of those whose files are now in the folder of ``ctx``.
    """
    known = _finished(places, ctx, set(keys.values())) if keys else {}

    def one(task: int) -> dict[str, Any] | None:
        for finished in known.get(keys[task], ()):
            with suppress(FileNotFoundError):  # it is being removed, or published
                files = [_take(finished.folder, entry, ctx.folder, task) for entry in finished.files]
                if all(files):
                    return {"result": finished.result, "files": files, "key": keys[task]}
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        markers = dict(zip(keys, pool.map(one, keys), strict=True))
    taken = {task: marker for task, marker in markers.items() if marker is not None}
    for folder in {(ctx.folder / entry["name"]).parent for marker in taken.values() for entry in marker["files"]}:
        fsync_folder(folder)
    return taken


def _finished(places: Iterable[Path], ctx: TaskContext, wanted: set[str]) -> dict[str, list[Finished]]:
    """Who has done tasks of the wanted keys."""
    found: dict[str, list[Finished]] = {}
    for place in places:
        for folder in sorted(place.glob(f"{ctx.step.kind}-*")):
            if folder == ctx.folder:
                continue
            for key, finished in _tasks_of(folder):
                if key in wanted:
                    found.setdefault(key, []).append(finished)
    return found


def _tasks_of(folder: Path) -> Iterator[tuple[str, Finished]]:
    """The keyed tasks of an artifact, finished or not; of one that cannot be trusted, none."""
    with suppress(FileNotFoundError, Spoilt, orjson.JSONDecodeError, KeyError, TypeError, StopIteration):
        if folder.suffix == ".partial":
            for path in folder.glob("done/*/*.json"):
                marker = read_sealed(path)
                if "key" in marker:
                    yield marker["key"], Finished(folder, marker["result"], marker["files"])
            return
        manifest = read_sealed(folder / MANIFEST)
        data = (folder / TASKS).read_bytes()
        listed = next(entry for entry in manifest["files"] if entry["name"] == TASKS)
        if xxhash.xxh3_128_hexdigest(data) == listed["digest"]:
            for entry in orjson.loads(data):
                yield entry["key"], Finished(folder, entry["result"], entry["files"])


def _take(folder: Path, entry: dict[str, Any], into: Path, task: int) -> dict[str, Any] | None:
    """Link a file under the name that the task gives it; its entry, or None if the bytes are not those recorded."""
    name = entry["as"].replace("{task}", f"{task:05d}")
    place(folder / entry["name"], into / name)
    if digest_file(into / name) != entry["digest"]:
        (into / name).unlink()
        return None
    return {**entry, "name": name}


def place(source: Path, target: Path) -> None:
    """Have a finished file at a second place: by a hard link, or as a copy where the file system has none.

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
