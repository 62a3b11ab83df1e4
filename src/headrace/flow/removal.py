"""Delete folders in the background: a million scratch files take minutes."""

from __future__ import annotations

import os
import queue
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.flow.mirror import mirror_of
from headrace.flow.storage import process_name

REMOVING = ".removing"


class Removal:
    """Deletes folders in a thread; a context manager that waits for it to finish.

    Whatever a killed run had left to delete goes first.

    Args:
        run: the run folder. Folders are first moved into one of its own, so that they disappear from their place at
            once.
    """

    def __init__(self, run: Path) -> None:
        self._folder = run / REMOVING
        self._folders: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._remove, daemon=True)

    def take(self, path: Path) -> None:
        """Delete a folder, if it exists."""
        aside = self._folder / f"{path.parent.name}-{path.name}-{process_name()}"
        try:
            os.replace(path, aside)
        except FileNotFoundError:
            return
        self._folders.put(aside)

    def take_stored(self, path: Path) -> None:
        """Delete what the store of a run at a URL has of a folder; what a kill leaves is taken by the next run."""
        if mirror_of(path) is not None:
            self._folders.put(path)

    def _remove(self) -> None:
        while (path := self._folders.get()) is not None:
            if path.parent == self._folder:
                shutil.rmtree(path, ignore_errors=True)
            elif mirror := mirror_of(path):
                with suppress(Exception):
                    mirror.remove(path)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.iterdir():
            self._folders.put(left)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folders.put(None)
        self._thread.join()
        shutil.rmtree(self._folder, ignore_errors=True)
