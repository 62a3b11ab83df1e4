"""The run's lock: one coordinator at a time. Asking whether it is held never takes it, so asking cannot block a run."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.errors import UserError
from headrace.flow.storage import explain_os_error

LOCK = ".lock"
# Open file description locks (fcntl(2)) end with their process, and can be queried through a read-only handle. Where
# the system has none, flock is used, and the process id in the file is the answer.
_BY_DESCRIPTION = hasattr(fcntl, "F_OFD_SETLK")
_FLOCK = "hhqqi4x"  # struct flock: type, whence, start, length, process


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold the run folder, because two coordinators at once would undo each other's work.

    Raises:
        UserError: the folder cannot be created or written, or another run holds it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        fix = "Choose another --out or fix its permissions."
        raise explain_os_error(error, run) or UserError(
            f"The run folder cannot be created: {error.strerror}.", str(run), fix
        ) from None
    try:
        if not _take(handle):
            other = os.read(handle, 32).decode("ascii", "replace").strip()
            raise UserError(
                f"Another headrace run (process {other}) is using this folder.",
                str(run),
                "Wait for it to finish, or stop it first.",
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _take(handle: int) -> bool:
    try:
        if _BY_DESCRIPTION:
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES
        return False
    return True


def locked(run: Path) -> bool:
    """Whether a coordinator is using the folder now. Takes no lock and writes nothing."""
    try:
        handle = os.open(run / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        if _BY_DESCRIPTION:
            asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            return bool(struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)
        holder = os.read(handle, 32).strip()
        return holder.isdigit() and _alive(int(holder))
    finally:
        os.close(handle)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
