"""The journals of a run at a URL: appended to here, pushed there in pieces.

``done/<phase>/<fencing number>-<first byte>.jsonl`` are the pieces that a coordinator has pushed of a journal, from its
beginning on, every few seconds; ``done/<phase>.jsonl`` is the whole journal, once its phase is over. Who needs one
takes the whole, or the pieces of the highest fencing number: an earlier coordinator may still have some in flight.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.flow.mirror import Mirror

SECONDS = 2.0  # between two pushes; tasks whose markers were not pushed are done again if this machine is lost


class Journals:
    """Pushes a coordinator's journals in the background; a context manager.

    Args:
        mirror: the run's.
        fence: the fencing number of its coordinator.
    """

    def __init__(self, mirror: Mirror, fence: int) -> None:
        self._mirror, self._fence = mirror, fence
        self._pushed: dict[Path, int] = {}
        self._over, self._lock = threading.Event(), threading.Lock()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._push_all, daemon=True)

    def opened(self, path: Path) -> None:
        """A journal is opened to be added to: what the store has of it as a whole no longer holds."""
        with self._lock:
            if path.exists() and path.stat().st_size:
                self._mirror.remote.delete([self._mirror.key(path)])
            self._pushed[path] = 0

    def closed(self, path: Path) -> None:
        """A journal is closed: push it whole.

        Raises:
            UserError: it cannot be pushed, or the lease is lost.
        """
        with self._lock:
            self._pushed.pop(path, None)
        self._mirror.check()
        if self._error is not None:
            raise self._error
        if path.exists():
            self._mirror.remote.put(self._mirror.key(path), path)

    def _push_all(self) -> None:
        while not self._over.wait(SECONDS):
            try:
                with self._lock:
                    for path, at in self._pushed.items():
                        self._pushed[path] = self._push(path, at)
            except Exception as error:
                self._error = error
                return

    def _push(self, path: Path, at: int) -> int:
        self._mirror.check()
        try:
            with open(path, "rb") as file:
                file.seek(at)
                data = file.read()
        except FileNotFoundError:
            return at
        data = data[: data.rfind(b"\n") + 1]
        if data:
            key = f"{self._mirror.key(path).removesuffix('.jsonl')}/{self._fence:08d}-{at:012d}.jsonl"
            self._mirror.remote.put(key, data)
        return at + len(data)

    def __enter__(self) -> Self:
        self._mirror.journals = self
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._mirror.journals = None
        with suppress(Exception):  # whoever goes on does those tasks again
            for path, at in self._pushed.items():
                self._push(path, at)


def have_journal(mirror: Mirror, path: Path, anew: bool = False) -> None:
    """Fetch a journal, if it is not here and the store has it.

    Args:
        mirror: the run's.
        path: the journal.
        anew: replace what is here.
    """
    if path.exists() and not anew:
        return
    key = mirror.key(path)
    with mirror.fetching(path) as temporary:
        if path.exists() and not anew:
            return
        try:
            mirror.remote.fetch(key, temporary)
        except FileNotFoundError:
            if not _assemble(mirror, key.removesuffix(".jsonl"), temporary):
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, path)


def _assemble(mirror: Mirror, prefix: str, into: Path) -> bool:
    """Write the pieces of the last coordinator to a file; returns whether there are any."""
    pieces = sorted(Path(key).stem for key, _ in mirror.remote.names(prefix))
    last = pieces[-1].partition("-")[0] if pieces else ""
    with open(into, "wb") as file:
        for name in pieces:
            fence, _, first = name.partition("-")
            if fence == last and int(first) == file.tell():  # a piece that the list has too early
                file.write(mirror.remote.read(f"{prefix}/{name}.jsonl")[0])
        return file.tell() > 0
