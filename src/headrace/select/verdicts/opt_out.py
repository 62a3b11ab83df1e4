"""Documents of those who opted out, by lists of repositories, paths, URLs and ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import orjson
import pyarrow as pa

from headrace.documents.checked_file import confirm
from headrace.documents.fingerprint import fingerprinted
from headrace.documents.sources import InputFile, list_files
from headrace.documents.urls import url_of
from headrace.errors import UserError
from headrace.flow.storage import cannot_read
from headrace.recipe.licences import OptOut
from headrace.recipe.schema import Source
from headrace.select.verdicts.filters import Removals

COLUMNS = ("id", "repo", "path", "meta")
"""The document columns that are examined."""

LARGEST = 256 << 20  # bytes of a list, which every worker holds
_HOST = re.compile(r"^(?:https?|git|ssh)://(?:[^/@]*@)?(?:www\.)?", re.IGNORECASE)
_ID = re.compile(r"[0-9a-f]{32}")


class Entry(NamedTuple):
    """Where an entry stands: its list, its line from 1, and what is written there."""

    list: str
    line: int
    value: str


@dataclass(frozen=True)
class ListFile:
    """One list, with its fingerprint: ``kind`` is its key in the recipe."""

    kind: str
    file: InputFile


def list_lists(config: OptOut) -> tuple[ListFile, ...]:
    """The files of all lists with their fingerprints.

    Args:
        config: the recipe's section, with absolute paths (as loaded).

    Raises:
        UserError: a file is missing, too large or unreadable, or a glob matches nothing.
    """
    found = []
    for kind in OptOut.model_fields:
        if not (names := getattr(config, kind)):
            continue
        where = f"opt_out.{kind}"
        source = Source.model_validate({"files": list(names), "format": "text"})
        try:
            for file in list_files("opt_out", source, 0, Path.cwd()):
                if file.size > LARGEST or file.remote or file.compression:
                    fix = f"Use plain local files of at most {LARGEST >> 20} MiB."
                    raise UserError("The list is compressed, remote or too large.", f"{where}: {file.url}", fix)
                found.append(ListFile(kind, fingerprinted(file)))
        except UserError as error:
            raise UserError(error.what, error.where.replace("sources.opt_out.files", where, 1), error.fix) from None
        except OSError as error:
            raise cannot_read("The list", where, error) from None
    return tuple(found)


class Lists:
    """The entries of all lists.

    Args:
        files: from :func:`list_lists`.

    Raises:
        UserError: a list has changed since it was fingerprinted, is not UTF-8, or has an entry of the wrong form.
    """

    def __init__(self, files: tuple[ListFile, ...]) -> None:
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in OptOut.model_fields}
        for one in files:
            known = self._entries[one.kind]
            for line, value in _lines(one.file):
                for key in _keys(one, line, value):
                    known.setdefault(key, Entry(one.file.name, line, value))

    def match(self, document: dict[str, Any]) -> tuple[str, Entry] | None:
        """The kind and entry that a document is on first: ids, repositories, paths, then URLs."""
        for kind, key in self._candidates(document):
            if (entry := self._entries[kind].get(key)) is not None:
                return kind, entry
        return None

    def _candidates(self, document: dict[str, Any]) -> Iterator[tuple[str, str]]:
        yield "ids", document["id"]
        repo = None if document["repo"] is None else repository(document["repo"])
        if repo and self._entries["repositories"]:
            yield "repositories", repo
            yield "repositories", f"{repo.split('/')[0]}/"
        if document["path"] and self._entries["paths"]:
            path = document["path"].casefold().removeprefix("./").lstrip("/")
            for above in (path, *_above(path)):
                if repo:
                    yield "paths", f"{repo}:{above}"
                yield "paths", above
        if self._entries["urls"] and (url := url_of(document["meta"])):
            address = _address(url)
            host, _, path = address.partition("/")
            yield "urls", address
            yield "urls", address.split("?")[0].split("#")[0]
            for above in _above(path):
                yield "urls", f"{host}/{above}"
            labels = host.split(":")[0].split(".")
            for i in range(len(labels)):
                yield "urls", ".".join(labels[i:]) + "/"


def opted_out(documents: pa.RecordBatch, lists: Lists) -> Removals:
    """Remove what is on any list.

    Args:
        documents: with :data:`COLUMNS`.
        lists: the lists.

    Returns:
        The reason ``opt_out`` or null, and as evidence ``{"by": the recipe's key, "value": the entry, "list": its file,
        "line"}``.
    """
    reasons = np.full(documents.num_rows, None, dtype=object)
    evidence = np.full(documents.num_rows, None, dtype=object)
    columns = (documents.column(name).to_pylist() for name in COLUMNS)
    for row, values in enumerate(zip(*columns, strict=True)):
        if found := lists.match(dict(zip(COLUMNS, values, strict=True))):
            kind, entry = found
            told = {"by": kind, "value": entry.value, "list": entry.list, "line": entry.line}
            reasons[row], evidence[row] = "opt_out", orjson.dumps(told).decode()
    return Removals(pa.array(reasons, pa.string()), pa.array(evidence, pa.string()))


def repository(text: str) -> str:
    """A repository as it is compared: ``owner/name`` in lower case, without the address of its host."""
    address = _HOST.sub("", text.strip()).casefold()
    host, _, below = address.partition("/")
    hosted = address != text.strip().casefold() or ("." in host and "/" in below)
    if ":" in host:  # git@host:owner/name
        address, hosted = address.partition(":")[2], False
    return (below if hosted else address).removesuffix(".git")


def _lines(file: InputFile) -> Iterator[tuple[int, str]]:
    data = Path(file.url).read_bytes()
    if fingerprinted(file).digest != file.digest:
        raise UserError("The list has changed since the run began.", file.url, "Run it again.")
    confirm(file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"The list is not UTF-8 (byte {error.start}).", file.url, "Convert it.") from None
    for number, line in enumerate(text.split("\n"), 1):
        value = line.strip()
        if value and not value.startswith("#"):
            yield number, value


def _keys(one: ListFile, line: int, value: str) -> tuple[str, ...]:
    """What documents an entry covers are looked up by.

    Raises:
        UserError: it is not of its list's kind.
    """
    if one.kind == "ids":
        if not _ID.fullmatch(value.lower()):
            where = f"{one.file.url}, line {line}"
            raise UserError(f"{value[:80]!r} is not a document id.", where, "Ids have 32 hexadecimal digits.")
        return (value.lower(),)
    if one.kind == "repositories":
        key = repository(value)
        owner = key.removesuffix("/")
        # A name alone may be an owner's or, where repositories have no owners, a repository's.
        return (key,) if "/" in owner else (owner, f"{owner}/")
    if one.kind == "paths":
        repo, colon, path = value.rpartition(":")
        below = path.casefold().removeprefix("./").lstrip("/")
        return (f"{repository(repo)}:{below}" if colon else below,)
    address = _address(value)
    # A domain alone, or with its `/`, is all of it.
    return (address if "/" in address else f"{address}/",)


def _address(url: str) -> str:
    """A URL without scheme, user and ``www.``, as it is compared."""
    return unquote(_HOST.sub("", url.strip())).casefold()


def _above(path: str) -> list[str]:
    """The folders above a path, nearest first, each with its ``/``."""
    parts = path.split("/")[:-1]
    return ["/".join(parts[:n]) + "/" for n in range(len(parts), 0, -1)]
