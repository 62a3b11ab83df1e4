"""Answers that are kept: a journal in the run folder, and files of earlier ones. What is in them is not asked again.

A line of the journal is one of

    {"key", "body", "seconds"}    the body of a response, as it came; ``key`` is the request's hash
    {"key", "failed"}             a request that got no answer, however often it was repeated, while others did
    {"key", "tested", "detail"}   what the sandbox said of a program; ``key`` is the hash of program and tests
    {"trouble", "seconds"}        an attempt that was repeated, and why

and of several lines with a key the first counts. Files of answers, of the same form, are read before the journal.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.flow.journal import Journal, placed_entries, read_entry
from headrace.synthetic.requests import Reply, Rubbish, read_reply

FOLDER = "answers"  # of a run
FOLD = 1 << 16  # places held as Python objects (200 bytes each) before they join the arrays (17 bytes each)
SYNC_SECONDS = 1.0
SYNC_LINES = 256


class Answers:
    """The answers of one synthetic source; a context manager.

    Args:
        path: the journal; created if there is none.
        files: files of earlier answers.

    Attributes:
        trouble: how often each kind of trouble is in the journal.
    """

    def __init__(self, path: Path, files: Sequence[Path] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._paths = [*files, path]
        self._handles: dict[int, Any] = {}
        self._keys = np.empty(0, np.uint64)
        self._places = np.empty((0, 2), np.int64)
        self._new: dict[int, list[tuple[int, int]]] = {}
        self.trouble: Counter[str] = Counter()
        for number, one in enumerate(self._paths):
            for at, entry in placed_entries(one):
                self._place(number, at, entry)
        self._fold()
        self._journal = Journal(path)
        self._unsynced, self._synced = 0, time.monotonic()

    def __enter__(self) -> Answers:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.sync()
        self._journal.close()
        for handle in self._handles.values():
            handle.close()

    def _place(self, number: int, at: int, entry: dict[str, Any]) -> None:
        if isinstance(entry.get("trouble"), str):
            self.trouble[entry["trouble"]] += 1
        key = entry.get("key")
        if not isinstance(key, str) or len(key) != 32:
            return
        try:
            half = int(key[:16], 16)
        except ValueError:
            return
        self._new.setdefault(half, []).append((number, at))
        if len(self._new) >= FOLD:
            self._fold()

    def _fold(self) -> None:
        """Move the places of new lines into the arrays."""
        if not self._new:
            return
        flat = [(half, *place) for half, places in self._new.items() for place in places]
        keys = np.array([half for half, _, _ in flat], np.uint64)
        places = np.array([place for _, *place in flat], np.int64).reshape(-1, 2)
        keys, places = np.concatenate([self._keys, keys]), np.concatenate([self._places, places])
        order = np.argsort(keys, kind="stable")
        self._keys, self._places, self._new = keys[order], places[order], {}

    def entry(self, key: str) -> dict[str, Any] | None:
        """The first line with a key."""
        half = int(key[:16], 16)
        first, last = (
            np.searchsorted(self._keys, np.uint64(half)),
            np.searchsorted(self._keys, np.uint64(half), "right"),
        )
        places = [*map(tuple, self._places[first:last].tolist()), *self._new.get(half, [])]
        for number, at in places:
            handle = self._handles.get(number)
            if handle is None:
                handle = self._handles[number] = open(self._paths[number], "rb")  # noqa: SIM115 - closed on exit
            handle.seek(at)
            entry = read_entry(handle.readline())
            if entry is not None and entry["key"] == key:
                return entry
        return None

    def reply(self, key: str) -> Reply | None:
        """What became of a request; None if it has not been asked."""
        entry = self.entry(key)
        if entry is None:
            return None
        if "body" not in entry:
            return Reply("", failed=str(entry.get("failed")))
        try:
            return read_reply(entry["body"])
        except Rubbish as error:  # a file that somebody else wrote
            return Reply("", failed=str(error))

    def add(self, entry: dict[str, Any]) -> None:
        """Keep a line: a kill loses nothing of it, a loss of power what was added in the last second or so."""
        at = self._paths[-1].stat().st_size
        self._journal.add(entry)
        self._place(len(self._paths) - 1, at, entry)
        self._unsynced += 1
        if self._unsynced >= SYNC_LINES or time.monotonic() - self._synced > SYNC_SECONDS:
            self._journal.sync()
            self._unsynced, self._synced = 0, time.monotonic()
