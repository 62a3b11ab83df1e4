"""Messages and signs of life between machines that share nothing but a file system.

Nothing here asks more of it than that a file reopened has what was written before it was closed, which NFS promises
(RFC 1813, close-to-open consistency): no locks, no notifications, no clocks compared. Each file has a single writer. A
mailbox is a :mod:`headrace.flow.journal` that is opened for each message; a line that has not arrived in full is read
again later. Life is a counter: who watches it sees by a clock of its own whether it changes.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import orjson

from headrace.flow.journal import Journal, read_entry
from headrace.flow.storage import SealError, read_sealed, write_sealed

BEAT_SECONDS = 2.0  # between two signs of life
PATIENCE = (
    60.0  # a counter that has stood still for so long is of a dead machine; NFS caches attributes for 60 s at most
)


class Outbox:
    """The writer's end of a mailbox.

    Args:
        path: the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, *messages: dict[str, Any]) -> None:
        """Append messages; whoever opens the file from now on finds them."""
        journal = Journal(self._path)
        for message in messages:
            journal.add(message)
        journal.close()


class Inbox:
    """The reader's end of a mailbox.

    Args:
        path: the file, which need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0

    def take(self) -> list[dict[str, Any]]:
        """The messages that have arrived since the last call."""
        try:
            with open(self._path, "rb", buffering=0) as f:
                f.seek(self._at)
                lines = f.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        messages = []
        for line in lines:
            message = read_entry(line) if line else {}
            if message is None:
                break
            if message:
                messages.append(message)
            self._at += len(line) + 1
        return messages


class Pulse:
    """A file that says what its writer is, and a counter that says that it lives.

    Args:
        path: the file.
        told: what else it says; JSON.
    """

    def __init__(self, path: Path, told: dict[str, Any]) -> None:
        self._path, self._told, self._count = path, told, 0

    def beat(self, **changed: Any) -> None:
        """Count on, and say what has changed."""
        self._count += 1
        self._told |= changed
        write_sealed(self._path, {**self._told, "count": self._count}, durable=False)


def read_pulse(path: Path) -> dict[str, Any] | None:
    """What a :class:`Pulse` says now; None if there is none, or it cannot be read at this moment."""
    try:
        return read_sealed(path)
    except (OSError, SealError):
        return None


class Watch:
    """Tells when something has stopped changing, by this machine's clock.

    Args:
        patience: seconds after which something that is the same counts as stopped.
    """

    def __init__(self, patience: float) -> None:
        self._patience, self._last, self._since = patience, b"", time.monotonic()

    def stopped(self, value: Any) -> bool:
        """Whether the value, JSON, has been the same for too long. None is no news."""
        seen = self._last if value is None else orjson.dumps(value)
        if seen != self._last:
            self._last, self._since = seen, time.monotonic()
        return time.monotonic() - self._since > self._patience


def mailboxes(folder: Path) -> set[str]:
    """The names of those who have written: ``NAME.out`` in a folder."""
    try:
        return {entry.name[:-4] for entry in os.scandir(folder) if entry.name.endswith(".out")}
    except FileNotFoundError:
        return set()
