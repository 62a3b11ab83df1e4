"""A journal: a file to which JSON objects are appended, one a line.

Each line ends in ``sum``, 8 hexadecimal digits of the XXH3-64 of its other fields. Readers skip lines that a kill cut
short or that are damaged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import xxhash

from headrace.visible import escaped_json, json_line

Entry = dict[str, Any]


class Journal:
    """A journal opened for appending; what is added is in the file when :meth:`add` returns.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - closed in close()
        if self._file.tell() and os.pread(self._file.fileno(), 1, self._file.tell() - 1) != b"\n":
            self._file.write(b"\n")  # after a line that was cut short

    def add(self, entry: Entry) -> None:
        """Append an entry, unless the journal is closed."""
        if not self._file.closed:
            line = json_line({**entry, "sum": _sum(json_line(entry))})
            self._file.write(escaped_json(line.decode()).encode())

    def sync(self) -> None:
        """Have what was added outlive a loss of power."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _sum(line: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(line.rstrip(b"\n"))[:8]


def read_journal(path: Path, having: Sequence[bytes] = ()) -> Iterator[Entry]:
    """The entries of a journal, oldest first, without damaged lines; none if there is no such file.

    Args:
        path: the journal.
        having: only lines that contain one of these; the others are not parsed.
    """
    for _, entry in placed_entries(path, having):
        yield entry


def placed_entries(path: Path, having: Sequence[bytes] = ()) -> Iterator[tuple[int, Entry]]:
    """:func:`read_journal` with the place of each line, in bytes from the beginning."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        return
    with file:
        at = 0
        for line in file:
            wanted = not having or any(part in line for part in having)
            if wanted and (entry := read_entry(line)) is not None:
                yield at, entry
            at += len(line)


def read_entry(line: bytes) -> Entry | None:
    """The entry of a line; None if it is damaged."""
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    intact = isinstance(entry, dict) and entry.pop("sum", None) == _sum(orjson.dumps(entry))
    return entry if intact else None
