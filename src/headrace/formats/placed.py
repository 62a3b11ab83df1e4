"""Files that are read at any place, untrusted: whatever is not there is told, whatever they promise."""

from __future__ import annotations

import os
import stat
from pathlib import Path

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
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - stays open

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
