"""A run at a URL is worked on in a folder of this machine, its *mirror*: a cache of what lies there.

Whatever runs, opens or shows a run sees a local folder. What is published in it is written to the store first, and what
is not here is fetched when its path is asked for, compared with the digest that its manifest or marker has. So a
machine may come with an empty mirror, or vanish with its own, and nothing is lost.

Keys are the names within the run, but for two kinds of files:

- Those that tasks write have a part of their digest in the key, ``artifacts/X.partial/shards/00007-000.parquet~<16 hex
  digits>``: an attempt that was thought dead never overwrites what another one wrote, on stores without conditional
  writes too.
- Those of an artifact that is being published lie in ``X.partial`` here, and have their final key there,
  ``artifacts/X/00000.parquet``; ``artifacts/X/manifest.json`` comes last.

A file that has its final name in a mirror is in the store, unless it may still be written. Those that tasks wrote, and
that were pushed or fetched, can be read only (mode 444), which is how it is known that they may be deleted here.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import xxhash

from headrace.errors import UserError
from headrace.flow.cloud import is_url, normal
from headrace.flow.eviction import arrived
from headrace.flow.remote import Remote, Unconditional

REMOTE = ".remote"
KIN = ".kin"
FETCHING = ".fetching"
PARTIAL = ".partial"
MANIFEST = "manifest.json"
ARTIFACTS = "artifacts"
WRITTEN = ("scratch", "shards", "files")  # what tasks write in X.partial
SCAFFOLD = (*WRITTEN, "plan", "done", "at", "verified")
PRIVATE = ("at", "verified")  # of this machine alone
THREADS = 16  # requests at once; each waits some 30 ms for its answer

Entry = dict[str, Any]
_OPENED: dict[tuple[str, int], Mirror] = {}  # by folder and process


def cache_folder() -> Path:
    """Where mirrors lie: ``$HEADRACE_CACHE``, by default ``~/.cache/headrace``."""
    told = os.environ.get("HEADRACE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(told or os.path.join(base, "headrace")).absolute() / "runs"


def working_folder(place: Path | str) -> Path:
    """The local folder in which a run, or what lies in one, is read and written: the folder itself, or the mirror of a
    URL. Of a run, what may have changed since it was last looked at is read again, unless a coordinator on this machine
    is at work in the mirror, which then knows best.

    Args:
        place: a folder, ``file://`` URL, or URL of an object store such as ``s3://bucket/runs/x``.

    Raises:
        UserError: the URL cannot be opened.
    """
    from headrace.flow.refreshing import refresh

    mirror, path = _placed(place)
    if mirror is not None and path == mirror.folder:  # what is in an artifact has a known name, and does not change
        refresh(mirror)
    return path


def local_path(place: Path | str) -> Path:
    """:func:`working_folder` without a look at what has changed: where that folder is, or will be."""
    return _placed(place)[1]


def _placed(place: Path | str) -> tuple[Mirror | None, Path]:
    text = str(place)
    if not is_url(text):
        return None, Path(place).absolute()
    if text.startswith("file:/"):
        from urllib.parse import unquote

        return None, Path(unquote(text.removeprefix("file:").replace("//", "", 1))).absolute()
    # A sequence in a run shares the run's mirror.
    url, _, inside = normal(text).partition(f"/{ARTIFACTS}/")
    mirror = Mirror.at(url)
    return mirror, mirror.folder / ARTIFACTS / inside if inside else mirror.folder


def mirror_of(path: Path) -> Mirror | None:
    """The mirror that a path lies in; None for what lies anywhere else, which costs a comparison of two strings."""
    base = _base()
    text = str(path)
    if not text.startswith(base):
        return None
    return _opened(base + text[len(base) :].partition("/")[0], os.getpid())


def _base() -> str:
    return _base_of(os.environ.get("HEADRACE_CACHE"), os.environ.get("XDG_CACHE_HOME"))


@cache
def _base_of(*environment: str | None) -> str:
    return f"{cache_folder()}/"


def _opened(folder: str, process: int) -> Mirror | None:
    """The mirror in a folder: always the same object, since it knows the lease."""
    if (folder, process) not in _OPENED:
        try:
            url = Path(folder, REMOTE).read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        _OPENED[folder, process] = Mirror(Path(folder), url)
    return _OPENED[folder, process]


def shown(folder: Path) -> str:
    """What a user calls a folder: the URL that it mirrors, or its path."""
    mirror = mirror_of(folder)
    return str(folder) if mirror is None else f"{mirror.url}/{folder.relative_to(mirror.folder)}".removesuffix("/.")


def here(path: Path, entry: Entry | None = None) -> Path:
    """Have a file of a run on this machine, if it lies in a mirror and its store has it; returns its path.

    Args:
        path: the file.
        entry: its ``bytes`` and ``digest``, if known.

    Raises:
        Spoilt: the store does not hold what was written.
    """
    mirror = mirror_of(path)
    if mirror is not None:
        mirror.have(path, entry)
    return path


class Held(Protocol):
    """What makes a process a run's coordinator."""

    def check(self) -> None:
        """Raises if another process is by now."""


class Pushed(Protocol):
    """What pushes the journals that a coordinator appends to."""

    def opened(self, path: Path) -> None:
        """A journal is opened to be added to."""

    def closed(self, path: Path) -> None:
        """A journal is closed."""


class Mirror:
    """The mirror of one URL.

    Args:
        folder: its folder.
        url: what it mirrors.

    Attributes:
        lease: what makes this process the run's coordinator, if it is; nothing is published once it is lost.
        pushed: size and time of change of files beside the artifacts, when this process pushed them.
        journals: pushes the journals that the coordinator appends to.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.url, self.remote = folder, url, Remote(url)
        self.lease: Held | None = None
        self.journals: Pushed | None = None
        self.pushed: dict[Path, tuple[int, int]] = {}

    @staticmethod
    def at(url: str) -> Mirror:
        """The mirror of a URL, which is made if there is none yet."""
        folder = Path(_base() + xxhash.xxh3_128_hexdigest(url.encode()))
        if not (folder / REMOTE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f"{REMOTE}.{os.getpid()}"
            temporary.write_text(url + "\n", encoding="utf-8")
            os.replace(temporary, folder / REMOTE)
        found = _opened(str(folder), os.getpid())
        assert found is not None
        return found

    @cached_property
    def kin(self) -> str:
        """A name for this mirror: whoever holds the lock of its folder may go on with what is in it."""
        path = self.folder / KIN
        with suppress(FileNotFoundError):
            return path.read_text("ascii")
        path.write_text(uuid.uuid4().hex, "ascii")
        return path.read_text("ascii")

    def key(self, path: Path, digest: str | None = None) -> str:
        """The key of a file; that of one that a task wrote depends on its digest too."""
        parts = path.relative_to(self.folder).parts
        if len(parts) > 2 and parts[0] == ARTIFACTS and parts[1].endswith(PARTIAL):
            if parts[2] in WRITTEN:
                return f"{'/'.join(parts)}~{digest[:16] if digest else 'unknown'}"
            if parts[2] not in SCAFFOLD:
                return "/".join([ARTIFACTS, parts[1].removesuffix(PARTIAL), *parts[2:]])
        return "/".join(parts)

    def check(self) -> None:
        """Whether this process may publish: a coordinator that has lost its lease may not.

        Raises:
            UserError: it has.
        """
        if self.lease is not None:
            self.lease.check()

    # Fetching.

    def have(self, path: Path, entry: Entry | None = None) -> bool:
        """Fetch a file if it is not here; returns whether it is here now.

        Raises:
            Spoilt: the store does not hold what was written.
        """
        try:
            os.utime(path)  # it was used, if the cache must shrink; also tells whether it is here
            return True
        except PermissionError:
            return path.exists()
        except (FileNotFoundError, NotADirectoryError):
            pass
        size, digest = (entry["bytes"], entry["digest"]) if entry else (None, None)
        with self.fetching(path) as temporary:
            if not path.exists():  # another process was faster
                try:
                    self.remote.fetch(self.key(path, digest), temporary, size, digest)
                except FileNotFoundError:
                    return False
                if entry is not None:
                    temporary.chmod(0o444)
                path.parent.mkdir(parents=True, exist_ok=True)
                os.replace(temporary, path)
                arrived(self.folder.parent, path.stat().st_size)
        return True

    @contextmanager
    def fetching(self, path: Path) -> Iterator[Path]:
        """A temporary file for what is to be at a path, for one process at a time: a file comes to a machine once."""
        folder = self.folder / FETCHING
        folder.mkdir(exist_ok=True)
        name = xxhash.xxh3_64_hexdigest(str(path).encode())
        temporary = folder / f"{name}.{os.getpid()}"
        with open(folder / f"{name[:2]}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield temporary
            finally:
                temporary.unlink(missing_ok=True)

    def holds(self, path: Path, entry: Entry) -> bool:
        """Whether the store has a file, by its size and the digest that it was written with."""
        head = self.remote.head(self.key(path, entry["digest"]))
        return head is not None and head.bytes == entry["bytes"] and head.digest in (None, entry["digest"])

    def ranges(self, path: Path, entry: Entry, spans: list[tuple[int, int]]) -> list[Any]:
        """Parts of a file that is not here: see :meth:`headrace.flow.remote.Remote.ranges`."""
        return self.remote.ranges(self.key(path, entry["digest"]), spans)

    def listed(self, folder: Path) -> dict[str, int]:
        """Keys of what the store says it has in a folder, with their sizes."""
        prefix = folder.relative_to(self.folder).as_posix()
        return {key: head.bytes for key, head in self.remote.names(prefix)}

    # Pushing.

    def push(self, path: Path, data: Path) -> None:
        """Write a file that is about to appear at a path to the store. Files of tasks come with :meth:`push_written`.

        Args:
            path: where it will be.
            data: where its bytes are now.
        """
        parts = path.relative_to(self.folder).parts
        if any(part.startswith(".") for part in parts) or (len(parts) > 2 and parts[2] in (*WRITTEN, *PRIVATE)):
            return
        self.check()
        key = self.key(path)
        if parts[0] == ARTIFACTS and parts[2:] == (MANIFEST,):
            self._publish(key, data)
        else:
            self.remote.put(key, data)

    def _publish(self, key: str, data: Path) -> None:
        """Write an artifact's manifest, which is never overwritten with another."""
        body = data.read_bytes()
        try:
            made = self.remote.create(key, body)
        except Unconditional:
            head = self.remote.head(key)
            there = head is not None and head.digest != xxhash.xxh3_128_hexdigest(body)
            made = None if there else self.remote.put(key, body)
        if made is None:
            raise UserError(
                "Another run has published this artifact with other bytes.",
                f"{self.url}/{key}",
                "Run the same command again; if this stays, two versions of headrace are at work on one run.",
            )

    def push_written(self, folder: Path, entries: Iterable[Entry]) -> None:
        """Write the files of a task to the store.

        Args:
            folder: of the artifact.
            entries: the files, with their ``name`` in it.
        """

        def one(entry: Entry) -> None:
            path = folder / entry["name"]
            self.remote.put(self.key(path, entry["digest"]), path, entry["digest"])
            path.chmod(0o444)
            arrived(self.folder.parent, entry["bytes"])

        self.all(one, entries)

    def copy(self, source: Path, target: Path, digest: str) -> None:
        """Copy a file within the store.

        Raises:
            FileNotFoundError: the store does not have it.
        """
        self.check()
        self.remote.copy(self.key(source, digest), self.key(target, digest))

    def copy_published(self, folder: Path, entries: Iterable[Entry], names: dict[str, str]) -> None:
        """Copy what tasks wrote to its final keys.

        Args:
            folder: of the artifact that is being built.
            entries: the files, with their ``name`` in it.
            names: their final names.

        Raises:
            UserError: one is gone.
        """

        def one(entry: Entry) -> None:
            try:
                self.copy(folder / entry["name"], folder / names[entry["name"]], entry["digest"])
            except FileNotFoundError:
                fix = "Run the same command again: its task is done again."
                raise UserError("A file is gone from the storage.", f"{self.url}/{entry['name']}", fix) from None

        self.all(one, entries)

    def remove(self, folder: Path) -> None:
        """Delete what the store has of an artifact; its manifest first, so that there is no moment at which it seems
        whole and is not."""
        prefix = folder.relative_to(self.folder).as_posix()
        if not prefix.endswith(PARTIAL):
            self.remote.delete([f"{prefix}/{MANIFEST}"])
        self.remote.delete(key for key, _ in self.remote.names(prefix))

    @staticmethod
    def all(action: Callable[[Any], object], over: Iterable[Any]) -> None:
        """Do something for each of some things, several at once."""
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(action, over))
