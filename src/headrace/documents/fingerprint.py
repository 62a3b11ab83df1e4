"""Fingerprints of input files: XXH3-128 of their bytes, cached by path, size and change time.

XXH3 (Collet, xxHash 0.8) is faster than reads from the page cache, so a first run pays for reading its input once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.documents.checked_file import fingerprint_file, remote_key
from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.flow.storage import SealError, read_sealed, write_sealed

THREADS = 8  # enough to hide the seeks of many small files; hashing and reading release the GIL
# A file changed this shortly before it was read could change again with the same times, which have a resolution of up
# to 2 s (FAT), so its fingerprint is not cached. Git calls such entries racy.
RACY = 2_000_000_000


@dataclass(frozen=True)
class Fingerprints:
    """The result of :func:`fingerprint`.

    Attributes:
        files: the input files with their fingerprints: 32 hexadecimal digits, or ``remote:<key>`` from their store.
        trusted: the number of files that were not read, because size and times match an earlier run.
        trusted_bytes: the size of those files.
    """

    files: tuple[InputFile, ...]
    trusted: int
    trusted_bytes: int


def fingerprint(files: Sequence[InputFile], cache_path: Path, read_all: bool = False) -> Fingerprints:
    """Fingerprint files.

    A file is recognized by its size, modification time and inode change time; the last cannot be set back.

    Args:
        files: input files.
        cache_path: a JSON file in the run folder, ``{path: [size, mtime, ctime, digest, blocks]}`` with times in ns;
            used if it exists, then replaced.
        read_all: ignore the cache.

    Raises:
        UserError: a file cannot be read or is gone.
    """
    cache = {} if read_all else _read_cache(cache_path)
    began = time.time_ns()
    known: dict[str, list[Any]] = {}

    def one(file: InputFile) -> tuple[InputFile, bool]:
        if file.remote:
            return fingerprinted(file), False
        try:
            stat = os.stat(file.url)
            key = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            entry = cache.get(file.url)
            trusted = entry is not None and entry[:3] == key
            if entry is None or not trusted:
                entry = [*key, *fingerprint_file(file.url)]
        except OSError as error:
            raise UserError(
                f"The file cannot be read: {error.strerror}.", file.url, "Fix it, or exclude it from its source."
            ) from None
        if max(key[1:]) < began - RACY:
            known[file.url] = entry
        return replace(file, digest=entry[3], blocks=entry[4]), trusted

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(one, files))
    if any(cache.get(path) != entry for path, entry in known.items()):
        write_sealed(cache_path, {"files": dict(sorted({**cache, **known}.items()))})
    held = [file for file, trusted in found if trusted]
    return Fingerprints(tuple(file for file, _ in found), len(held), sum(file.size for file in held))


def fingerprinted(file: InputFile) -> InputFile:
    """A file with its fingerprint, computed now.

    Raises:
        OSError: it cannot be read.
        UserError: it is remote and cannot be reached.
    """
    if file.remote:
        return replace(file, digest=remote_key(file.url))
    digest, blocks = fingerprint_file(file.url)
    return replace(file, digest=digest, blocks=blocks)


def trusted(files: Sequence[InputFile], cache_path: Path) -> tuple[int, int]:
    """The number and bytes of the files that :func:`fingerprint` would not read: for a plan."""
    cache = _read_cache(cache_path)
    count = size = 0
    for file in files:
        if not file.remote and file.url in cache:
            stat = os.stat(file.url)
            if cache[file.url][:3] == [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]:
                count, size = count + 1, size + stat.st_size
    return count, size


def _read_cache(path: Path) -> dict[str, list[Any]]:
    """The cache, or an empty one if it is missing or damaged: it only saves time."""
    try:
        return dict(read_sealed(path)["files"])
    except (FileNotFoundError, SealError, KeyError):
        return {}
