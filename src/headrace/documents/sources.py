"""List a source's input files, in an order that depends only on names."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.documents import globs
from headrace.documents.file_names import about, format_of, suffixes, unread
from headrace.documents.remote import remote_errors
from headrace.errors import UserError
from headrace.flow.notices import Notice
from headrace.flow.storage import cannot_read
from headrace.recipe.schema import Source

# Formats in which a file is one unit: a limit includes the whole file or none of it.
RECORDS = frozenset({"jsonl", "parquet", "arrow"})
WHOLE = frozenset({"text", "docstrings", "docstring_chat", "pydoc_topics"})


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file of a source.

    Attributes:
        url: where to open it: an absolute path or an fsspec URL. Never part of an identity.
        name: its name in ``origin_file``: relative to the fixed part of its glob.
        format: the reader's name, never ``auto``.
        compression: ``gzip``, ``zstd``, ``xz``, ``bzip2`` or None.
        size: bytes on disk.
        take: bytes of text after which reading stops (for the file that reaches the source's limit), or None.
        digest: its fingerprint (:mod:`headrace.documents.fingerprint`), '' until it has been taken.
        blocks: fingerprints of its blocks (:func:`headrace.documents.checked_file.fingerprint_file`).
    """

    url: str
    name: str
    format: str
    compression: str | None
    size: int
    take: int | None = None
    digest: str = field(default="", compare=False)
    blocks: str = field(default="", compare=False, repr=False)

    @property
    def remote(self) -> bool:
        """Whether it is read through fsspec."""
        return globs.is_remote(self.url)


def recipe_key(name: str) -> str:
    """A source's key in its recipe; the name of a reference source is already its key, and contains a dot."""
    return name if "." in name else f"sources.{name}"


def list_files(name: str, source: Source, seed: int, base: Path) -> list[InputFile]:
    """The input files of a source, each real file once.

    Args:
        name: the source's name.
        source: its section of the recipe.
        seed: the recipe's seed, which orders the files if there is a ``limit``.
        base: the recipe's folder, ``${recipe}``.

    Returns:
        Files in the order of the recipe's globs, then by name. With a limit: the first files, by keyed hash of their
        names, whose sizes on disk stay within it, and the file that crosses it with ``take`` set. A
        synthetic source has none.

    Raises:
        UserError: a file is missing, a glob matches nothing, or no file is left.
    """
    if source.synthetic is not None:
        return []
    where = f"{recipe_key(name)}.files"
    excluded = globs.excluder(
        tuple(globs.expand(p, base, f"{recipe_key(name)}.exclude", within=True) for p in source.exclude)
    )
    candidates: list[tuple[bool, int, str, InputFile, str]] = []
    left_out: Counter[str] = Counter()
    for number, files in enumerate(source.files):
        count, asked = 0, source.format_of(files)
        found: list[tuple[bool, int, str, InputFile, str]] = []
        for path, relative, size, linked in _match(files.glob, base, where):
            count += 1
            if excluded(relative, path):
                continue
            _named_in_unicode(path)
            suffix, compression = suffixes(relative)
            form = None if unread(relative) else format_of(relative, path) if asked == "auto" else asked
            if form is None:
                if relative == globs.plain(os.path.basename(files.glob)):
                    raise _refused(path, relative)
                left_out[suffix or os.path.basename(relative)] += 1
                continue
            real = path if globs.is_remote(path) else os.path.realpath(path)
            found.append((linked, number, relative, InputFile(path, relative, form, compression, size), real))
        if asked == "auto" and any(file.format in RECORDS for _, _, _, file, _ in found):
            # Skip a data set's card and license, unless the glob names their suffix.
            asked_for = re.findall(r"\w+", os.path.basename(files.glob))
            cards = [c for c in found if about(c[2]) and (suffixes(c[2])[0][1:] or c[2]) not in asked_for]
            left_out.update(os.path.basename(relative) for _, _, relative, _, _ in cards)
            found = [candidate for candidate in found if candidate not in cards]
        candidates += found
        if not count:
            raise UserError(
                "The glob matches no files.", f"{where}: {files.glob}", "Check its spelling; `**` crosses folders."
            )
    chosen = _once(candidates)
    told = ", ".join(f"{n} {what}" for what, n in left_out.most_common(8))
    if not chosen and left_out:
        raise UserError(
            f"The source {name!r} has no files with a recognized name: {told}.",
            where,
            "If they are text, set `format: text`.",
        )
    if not chosen:
        raise UserError(
            f"The source {name!r} has no files left after `exclude`.", f"{recipe_key(name)}.exclude", "Exclude less."
        )
    if left_out:
        skipped = f"{left_out.total():,} files skipped by name ({told})"
        text = f"source {name}: {skipped}; to read them as text, set `format: text`"
        warnings.warn(text, Notice, stacklevel=2)
    listing = _distinct(chosen, [label(files.glob) for files in source.files])
    return listing if source.limit is None else _limited(listing, source.limit, seed, name)


def _refused(path: str, name: str) -> UserError:
    if what := unread(name):
        return UserError(f"The file is {what}.", path, "Unpack it; .gz, .zst, .xz and .bz2 are read directly.")
    return UserError("The file's name does not identify it as text.", path, "If it is text, set `format: text`.")


def _named_in_unicode(path: str) -> None:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        raise UserError(
            "The file's name is not UTF-8.", path.encode("utf-8", "replace").decode(), "Rename or exclude it."
        ) from None


def _match(pattern: str, base: Path, where: str) -> Iterator[tuple[str, str, int, bool]]:
    """Yield (path, relative name, size, is a link) for the files that a glob, path or URL matches."""
    full = globs.expand(pattern, base, where).removeprefix("file://")
    if globs.is_remote(full):
        yield from _match_remote(pattern, full, base, where)
        return
    if not os.path.exists(full) and not globs.has_magic(pattern):
        full = globs.plain(full)
    if os.path.isfile(full):  # including files whose names contain wildcard characters
        yield os.path.abspath(full), os.path.basename(full), os.path.getsize(full), os.path.islink(full)
        return
    if os.path.isdir(full):
        root, below = full, "**/*"
    elif globs.has_magic(pattern):
        prefix, below = globs.split(pattern)
        root, below = globs.expand(prefix, base, where).removeprefix("file://"), globs.expand(below, base, where, True)
        root, below = _by_their_names(root, below)
    else:
        raise UserError("The file does not exist.", f"{where}: {full}", "Fix the path, or remove it from the recipe.")
    matches = globs.matcher(below)
    depth = None if "**" in below else below.count("/")
    for path, relative in _walk(os.path.abspath(root), depth):
        if matches(relative) and os.path.isfile(path):
            yield path, relative, os.path.getsize(path), os.path.islink(path)


def _by_their_names(root: str, below: str) -> tuple[str, str]:
    """The folder and the pattern below it, if folders on the way have names that look like patterns, such as
    ``[DATA]``."""
    while "/" in below:
        first, _, rest = below.partition("/")
        if first == "**" or not os.path.isdir(os.path.join(root, first)):
            break
        root, below = os.path.join(root, first), rest
    return root, below


def _walk(root: str, depth: int | None) -> Iterator[tuple[str, str]]:
    """Yield (path, relative name) below a folder. A linked folder is entered once, and only if it leads outside."""
    inside = os.path.realpath(root)
    seen: set[str] = set()
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_read("The folder", folder, error) from None
        below = []
        for entry in entries:
            relative = prefix + entry.name
            if not _is_folder(entry):
                yield entry.path, relative
                continue
            if depth is not None and relative.count("/") >= depth:
                continue
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if real in seen or f"{real}/".startswith(f"{inside}/") or f"{inside}/".startswith(f"{real}/"):
                    continue
                seen.add(real)
            below.append((entry.path, relative + "/"))
        waiting.extend(reversed(below))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself leads nowhere, like one to what is gone
            return False
        raise cannot_read("The folder", entry.path, error) from None


def _match_remote(pattern: str, full: str, base: Path, where: str) -> Iterator[tuple[str, str, int, bool]]:
    prefix, below = globs.split(pattern)
    prefix, below = globs.expand(prefix, base, where), globs.expand(below, base, where, within=True)
    with remote_errors(f"{where}: {full}"):
        import fsspec

        if not globs.has_magic(pattern):
            fs, path = fsspec.core.url_to_fs(full)
            fs.invalidate_cache()
            info = fs.info(path)
            if info["type"] != "directory":
                yield full, os.path.basename(path), int(info.get("size") or 0), False
                return
            prefix, below = full.rstrip("/"), "**/*"
        fs, root = fsspec.core.url_to_fs(prefix)
        fs.invalidate_cache()
        found: dict[str, Any] = fs.find(root, detail=True)
    matches = globs.matcher(below)
    for path in sorted(found):
        relative = path.removeprefix(root).lstrip("/")
        if matches(relative):
            yield fs.unstrip_protocol(path), relative, int(found[path].get("size") or 0), False


def _once(candidates: list[tuple[bool, int, str, InputFile, str]]) -> list[tuple[int, InputFile]]:
    """Each real file once, under its own name rather than a link's; by glob, then by name."""
    seen: set[str] = set()
    kept = []
    for linked, number, relative, file, real in sorted(candidates, key=lambda c: c[:3]):
        if real not in seen:
            seen.add(real)
            kept.append((number, relative, linked, file))
    return [(number, file) for number, _, _, file in sorted(kept, key=lambda k: k[:3])]


def label(pattern: str) -> str:
    """What distinguishes the files of one glob from another's: its variable, or the last fixed folder."""
    last = globs.split(pattern)[0].rstrip("/").rpartition("/")[2]
    return last.strip("${}") or "root"


def _distinct(chosen: list[tuple[int, InputFile]], labels: list[str]) -> list[InputFile]:
    """Tell files of different globs with the same relative name apart: ``<label>/<name>``, then
    ``<label>-2/<name>``."""
    taken: set[str] = set()
    listing = []
    for number, file in chosen:
        name, again = file.name, 1
        while name in taken:
            name = f"{labels[number]}{'' if again == 1 else f'-{again}'}/{file.name}"
            again += 1
        taken.add(name)
        listing.append(replace(file, name=name))
    return listing


def _content(file: InputFile, most: int) -> int:
    """A file's size; of a compressed one that of its content, as far as it is at most ``most``. (Remote files are not
    read for it: theirs is the size on disk.)
    """
    if file.compression is None or file.remote:
        return file.size
    from headrace.documents.readers.base import Tally
    from headrace.documents.readers.streams import Damaged, decompressed
    from headrace.errors import MemoryShareError

    size = 0
    with open(file.url, "rb") as stream:
        try:
            for block in decompressed(file, stream, Tally().memory):
                size += len(block)
                if size > most:
                    break
        except (Damaged, MemoryShareError):  # its reader says so
            pass
    return size


def _limited(listing: list[InputFile], limit: int, seed: int, name: str) -> list[InputFile]:
    """Files in keyed order until their sizes reach the limit; one with rows that crosses it is read in part."""
    from headrace.flow.keys import salt

    order = sorted(range(len(listing)), key=lambda i: (salt(seed, "limit", name, listing[i].name), listing[i].name))
    chosen: dict[int, InputFile] = {}
    left = limit
    for i in order:
        file = listing[i]
        size = _content(file, left)
        if size <= left:
            chosen[i] = file
            left -= size
        elif file.format not in WHOLE:
            if left:
                chosen[i] = replace(file, take=left)
            break
        elif size <= limit:
            break
    if not chosen:
        raise UserError(
            f"No file of the source {name!r} fits within its limit of {limit} bytes.",
            f"{recipe_key(name)}.limit",
            f"Raise it: the smallest file has {min(file.size for file in listing)} bytes.",
        )
    return [chosen[i] for i in sorted(chosen)]
