"""Files that are read at any place, untrusted: whatever is not there is told, whatever they promise."""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.errors import UserError


def size_of(path: Path) -> int:
    """The bytes of a file.

    Raises:
        UserError: there is no such file, or it is none.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, f"{error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise unreadable(path, "it is no file")
    return found.st_size


def unreadable(path: Path, why: str) -> UserError:
    """A file is not what it should be."""
    return UserError(f"This file of a sequence is not read: {why}.", str(path), "Export or download it again.")


def open_for(owner: object, path: Path, buffering: int = -1) -> BinaryIO:
    """Open a file to be read that is closed when its owner goes, at the latest: readers are passed around, and kept,
    and forgotten, and not all who use one know when it is the last time."""
    file = open(path, "rb", buffering=buffering)  # noqa: SIM115 - closed with its owner
    weakref.finalize(owner, file.close)
    return file


class Bytes:
    """A file that is read at any place.

    Args:
        path: the file.

    Raises:
        UserError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        size_of(path)
        self.path = path
        self._file = open_for(self, path, buffering=0)

    def read(self, out: np.ndarray, at: int) -> None:
        """Fill a contiguous array from a byte on.

        Raises:
            UserError: the file ends before.
        """
        left = out.reshape(-1).view(np.uint8)
        while left.size:
            count = os.preadv(self._file.fileno(), [left.data], at)
            if not count:
                raise unreadable(self.path, f"it ends at byte {at:,}, before its last row")
            left, at = left[count:], at + count

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
