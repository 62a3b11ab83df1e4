"""Files that a training appends to, step by step. A checkpoint says how long each was, so that a resumed training cuts
them back and goes on there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from headrace.flow.notices import Notice

LINES = 0
"""Instead of the size of an entry: entries are lines."""


class Appended:
    """Files being appended to; each is made by what is first added to it.

    Args:
        folder: where they are.
        entries: name -> bytes of an entry, or :data:`LINES`.
        lengths: bytes of each to continue after, by name, from :meth:`lengths`; what follows is cut off, because those
            steps run again.
    """

    def __init__(self, folder: Path, entries: Mapping[str, int], lengths: Mapping[str, int]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        for name, size in entries.items():
            expected = lengths.get(name, 0)
            if (folder / name).exists() or expected:
                self._cut(name, size, expected)

    def add(self, name: str, data: bytes) -> None:
        """Append entries and make them visible to readers at once."""
        file = self._open(name)
        file.write(data)
        file.flush()

    def lengths(self) -> dict[str, int]:
        """The bytes of each file so far, flushed to disk."""
        for file in self._files.values():
            os.fsync(file.fileno())
        return {name: _size(file) for name, file in self._files.items()}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()

    def _cut(self, name: str, entry: int, expected: int) -> None:
        file = self._open(name)
        found = _size(file)
        length = min(expected, found)
        file.truncate(length if entry == LINES else length - length % entry)
        if found < expected:
            if entry == LINES:
                file.write(b"\n")  # the last line may be cut off
            warnings.warn(
                f"{self._folder / name} has {found:,} bytes, and had {expected:,} when the checkpoint was written: "
                f"{'lines' if entry == LINES else 'entries'} are missing. Training is not affected.",
                Notice,
                stacklevel=4,
            )

    def _open(self, name: str) -> BinaryIO:
        if name not in self._files:
            self._files[name] = open(self._folder / name, "ab")  # noqa: SIM115 - until closed
        return self._files[name]


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size  # not its position, which stays behind the end when it is cut
