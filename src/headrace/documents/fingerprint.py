"""Fingerprints of input files: XXH3-128 of the bytes, remembered by path, size and time of change.

XXH3 (Collet, xxHash 0.8) reads faster than the page cache delivers, so a first run pays one reading of its input.
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
from headrace.flow.storage import Spoilt, read_sealed, write_sealed

THREADS = 8  # enough to hide the seeks of many small files; hashing and reading release the GIL
# A file that was changed this shortly before it was read may be changed again without its times telling: they count in
# steps of up to 2 s (FAT), so its fingerprint is not remembered. Git calls such entries racy.
RACY = 2_000_000_000


@dataclass(frozen=True)
class Fingerprints:
    """What was found.

    Attributes:
        files: the input files with their fingerprints: 32 hexadecimal digits, or ``remote:<key>`` by what their store
            says of them.
        trusted: of these, files that were not read: their size and times are those of a run before.
        trusted_bytes: their size.
    """

    files: tuple[InputFile, ...]
    trusted: int
    trusted_bytes: int


def fingerprint(files: Sequence[InputFile], cache_path: Path, read_all: bool = False) -> Fingerprints:
    """Fingerprint files.

    A file is known again by size, time of modification and time of change of its inode: the last cannot be put back.

    Args:
        files: input files.
        cache_path: a JSON file of the run folder, ``{path: [size, mtime, ctime, digest, blocks]}``, times in ns; used
            if there, then replaced.
        read_all: trust nothing in it.

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
    """A file with its fingerprint, taken now.

    Raises:
        OSError: it cannot be read.
        UserError: it is remote and cannot be reached.
    """
    if file.remote:
        return replace(file, digest=remote_key(file.url))
    digest, blocks = fingerprint_file(file.url)
    return replace(file, digest=digest, blocks=blocks)


def trusted(files: Sequence[InputFile], cache_path: Path) -> tuple[int, int]:
    """How many files, and of how many bytes, :func:`fingerprint` would not read: for a plan."""
    cache = _read_cache(cache_path)
    count = size = 0
    for file in files:
        if not file.remote and file.url in cache:
            stat = os.stat(file.url)
            if cache[file.url][:3] == [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]:
                count, size = count + 1, size + stat.st_size
    return count, size


def _read_cache(path: Path) -> dict[str, list[Any]]:
    """The cache, or nothing if it is absent or spoilt: it only saves time."""
    try:
        return dict(read_sealed(path)["files"])
    except (FileNotFoundError, Spoilt, KeyError):
        return {}
