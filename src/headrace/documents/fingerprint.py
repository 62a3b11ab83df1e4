"""Fingerprints of input files: XXH3-128 of the bytes, remembered by path, size and time of change.

XXH3 (Collet, xxHash 0.8) reads faster than the page cache delivers, so a first run pays one reading of its input.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from headrace.documents.sources import InputFile
from headrace.errors import UserError
from headrace.flow.storage import digest_file, read_json, write_json

THREADS = 8  # enough to hide the seeks of many small files; hashing and reading release the GIL


def fingerprint(files: Sequence[InputFile], cache_path: Path) -> list[str]:
    """The fingerprint of each file: 32 hexadecimal digits, or ``remote:<key>`` where the file system has one.

    Args:
        files: input files.
        cache_path: a JSON file of the run folder, ``{path: [size, mtime_ns, digest]}``; read if there, then replaced.

    Raises:
        UserError: a file cannot be read or is gone.
    """
    cache = _read_cache(cache_path)
    known: dict[str, list[int | str]] = {}

    def one(file: InputFile) -> str:
        if file.remote:
            return _remote(file)
        try:
            stat = os.stat(file.url)
            entry = cache.get(file.url)
            if entry is None or entry[:2] != [stat.st_size, stat.st_mtime_ns]:
                entry = [stat.st_size, stat.st_mtime_ns, digest_file(Path(file.url))]
        except OSError as error:
            raise UserError(
                f"The file cannot be read: {error.strerror}.", file.url, "Mend it, or exclude it from its source."
            ) from None
        known[file.url] = entry
        return str(entry[2])

    with ThreadPoolExecutor(THREADS) as pool:
        digests = list(pool.map(one, files))
    if any(cache.get(path) != entry for path, entry in known.items()):
        write_json(cache_path, {path: (known.get(path) or cache[path]) for path in sorted({*cache, *known})})
    return digests


def _remote(file: InputFile) -> str:
    import fsspec

    fs, path = fsspec.core.url_to_fs(file.url)
    try:
        return f"remote:{fs.ukey(path)}"
    except FileNotFoundError:
        raise UserError("The file does not exist any more.", file.url) from None


def _read_cache(path: Path) -> dict[str, list[int | str]]:
    """The cache, or nothing if it is absent or spoilt: it only saves time."""
    try:
        value = read_json(path)
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
