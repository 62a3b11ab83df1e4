"""Publish files so that a reader sees all of a file or nothing, and later damage is detected."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import xxhash

from headrace.errors import UserError

_BLOCK = 1 << 20


class SealError(ValueError):
    """A sealed file has changed since it was written."""


def local(path: Path | str) -> Path:
    """An absolute path to write to.

    Raises:
        UserError: it is a URL; runs are written to local disks only.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise UserError(
            "Runs are written to local folders; this is a URL.", str(path), "Use a local folder, then copy it."
        )
    return Path(path).absolute()


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def process_name(pid: int | None = None) -> str:
    """A process of this machine, by default this one, among those of all machines that share a file system; in letters
    that a file's name may have."""
    return f"{socket.gethostname()}-{pid or os.getpid()}"


@contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success, rename it to ``path``. In a mirror it is pushed first.

    The temporary name includes the process's, so that a task running twice at once does no harm.

    Args:
        path: the file.
        durable: whether the file must survive a loss of power: it and its folder are then synced.

    Raises:
        UserError: the system refused for a reason that the user can fix, such as a full disk.
    """
    from headrace.flow.mirror import mirror_of

    temporary = path.with_name(f".{path.name}.{process_name()}.tmp")
    with explaining_os_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                with open(temporary, "rb+") as f:
                    os.fsync(f.fileno())
            if mirror := mirror_of(path):
                mirror.push(path, temporary)
            os.replace(temporary, path)
            if durable:
                fsync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


# What the system may refuse: what it means, and what helps. EIO is not something a user fixes in headrace, but it is no
# bug in headrace either.
_SHORT_WRITE = -1
_GO_ON = "then run the same command again: finished tasks are kept."
_REFUSALS = {
    errno.ENOSPC: ("The disk is full.", f"Free some space, {_GO_ON}"),
    errno.EDQUOT: ("The disk quota is used up.", f"Free some space or ask for a larger quota, {_GO_ON}"),
    errno.EFBIG: ("The file would exceed the size limit.", f"Raise the limit (`ulimit -f`) or move the run, {_GO_ON}"),
    errno.EROFS: ("The file system is read-only.", "Remount it as writable, or work in another folder."),
    errno.EACCES: ("Permission denied.", "Fix its permissions, or work in another folder."),
    errno.EPERM: ("Permission denied.", "Fix its permissions, or work in another folder."),
    errno.EISDIR: ("A folder is where a file should be.", f"Move it away, {_GO_ON}"),
    errno.ENOTDIR: ("A file is where a folder should be.", f"Move it away, {_GO_ON}"),
    errno.ELOOP: ("A link leads to itself.", f"Delete it, {_GO_ON}"),
    errno.ENAMETOOLONG: ("The path is too long.", "Choose a shorter name or --out."),
    errno.EIO: ("The disk reports an error (EIO).", f"Check the system log and the disk, {_GO_ON}"),
    errno.ESTALE: ("The network file system has lost the file (ESTALE).", f"Mount it again, {_GO_ON}"),
    errno.EMFILE: ("This process has too many open files.", f"Raise the limit (`ulimit -n`), {_GO_ON}"),
    _SHORT_WRITE: (
        "A file could not be written in full: the disk is full, or a quota or size limit was reached.",
        f"Free some space or raise the limit, {_GO_ON}",
    ),
    errno.ENFILE: ("This machine has too many open files.", f"Close some, {_GO_ON}"),
}
# Libraries not written in Python put the error number in their text: "(os error 28)", "errno = 28", "[errno 28]".
_NUMBER = re.compile(r"(?:os error|errno)\W{0,3}(\d+)", re.IGNORECASE)
_SHORT = re.compile(r"\d+ requested and \d+ written")  # NumPy's tofile, which does not give the reason


def explain_os_error(error: BaseException, path: Path | str = "") -> UserError | None:
    """The user-facing error for something the operating system refused, or None if that is not the cause.

    Args:
        error: an exception from any library; its causes are examined too.
        path: what was being written, if the exception does not say.
    """
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, UserError):
        found = _REFUSALS.get(_code(seen) or 0)
        if found is not None:
            return UserError(found[0], str(getattr(seen, "filename", None) or path), found[1])
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _code(error: BaseException) -> int | None:
    """The system's error number behind an exception, from its field or text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if number := _NUMBER.search(text):
        return int(number[1])
    if isinstance(error, OSError) and _SHORT.search(text):
        return _SHORT_WRITE
    return next((code for code in _REFUSALS if code > 0 and os.strerror(code) in text), None)


def cannot_read(what: str, where: Path | str, error: OSError) -> UserError:
    """The user-facing error for something that the system does not let us read.

    Args:
        what: such as ``The list``.
        where: its path, or its key in the recipe.
        error: what the system says.
    """
    fixes = {
        errno.ENOENT: "It is gone: restore it, or fix its path.",
        errno.EACCES: "Fix its permissions.",
        errno.EPERM: "Fix its permissions.",
    }
    fix = fixes.get(error.errno or 0, "Check the file and its disk.")
    return UserError(f"{what} cannot be read: {error.strerror or error}.", str(where), fix)


@contextmanager
def explaining_os_errors(path: Path | str = "") -> Iterator[None]:
    """Turn what the operating system refuses in the body into a user-facing error.

    Raises:
        UserError: see :func:`explain_os_error`; other exceptions pass through.
    """
    try:
        yield
    except Exception as error:
        told = explain_os_error(error, path)
        if told is None:
            raise
        raise told from error


def write_json(path: Path, value: object, durable: bool = True) -> None:
    """Write JSON atomically, keys in the order given; ``durable`` as :func:`replacing` has it."""
    with replacing(path, durable) as temporary:
        temporary.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> object:
    """Read a JSON file."""
    return orjson.loads(path.read_bytes())


def write_sealed(path: Path, value: dict[str, Any], durable: bool = True) -> None:
    """Write a JSON object atomically with a last field ``seal``, the XXH3-128 of the others."""
    write_json(path, {**value, "seal": _seal(value)}, durable)


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a file written by :func:`write_sealed`, without the seal.

    Raises:
        FileNotFoundError: there is no such file.
        SealError: it has changed since it was written.
    """
    try:
        value: Any = read_json(path)
    except ValueError:
        raise SealError(f"{path} is not JSON") from None
    except (IsADirectoryError, NotADirectoryError):
        raise SealError(f"{path} is not a file") from None
    if not isinstance(value, dict) or value.pop("seal", None) != _seal(value):
        raise SealError(f"{path} has changed since it was written")
    return value


def _seal(value: dict[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(orjson.dumps(value))


def digest_file(path: Path) -> str:
    """The 128-bit XXH3 of a file's bytes, as 32 hexadecimal digits."""
    state = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as f:
        while block := f.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
