"""Publishing files so that a reader sees either nothing or the whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import xxhash

from headrace.errors import UserError

_BLOCK = 1 << 20


def fsync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success fsync it and rename it to ``path``.

    The temporary name carries the process id, so that a task that runs twice at once does no harm.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        refusal = disk_refusal(error, path)
        if refusal is not None:
            raise refusal from error
        raise


def disk_refusal(error: BaseException, path: Path) -> UserError | None:
    """The user's error for an operating-system refusal that the user can mend, or None."""
    code = getattr(error, "errno", None)
    if code in (errno.ENOSPC, errno.EDQUOT) or (isinstance(error, OSError) and "No space left" in str(error)):
        return UserError(
            "The disk is full.", str(path), "Free some space and run the same command again: finished tasks are kept."
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError("The folder cannot be written.", str(path), "Choose another --out or mend its permissions.")
    return None


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically, keys in the order given."""
    with replacing(path) as temporary:
        temporary.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def read_json(path: Path) -> object:
    """Read a JSON file."""
    return orjson.loads(path.read_bytes())


def digest_file(path: Path) -> str:
    """The 128-bit XXH3 of a file's bytes, as 32 hexadecimal digits."""
    state = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as f:
        while block := f.read(_BLOCK):
            state.update(block)
    return state.hexdigest()
