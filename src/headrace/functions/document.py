"""A document as user-defined functions see it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from headrace.nesting import deep

if TYPE_CHECKING:
    import pyarrow as pa

_LONG = re.compile("[0-9]{19}")  # digits of the first integers beyond 64 bits


@dataclass(frozen=True, slots=True)
class Document:
    """One document: the columns of the Documents artifact.

    Attributes:
        text: its normalized text.
        source: the source's name.
        origin_file, origin_row: where it was read; rows count from 0.
        license, repo, path, language: None if unknown.
        meta: the other fields of its record, as JSON values.
    """

    text: str
    source: str = ""
    origin_file: str = ""
    origin_row: int = 0
    license: str | None = None
    repo: str | None = None
    path: str | None = None
    language: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    def replace(self, **changes: Any) -> Document:
        """A copy with some values changed, such as ``document.replace(text=..., language="python")``."""
        return dataclasses.replace(self, **changes)


COLUMNS = tuple(f.name for f in dataclasses.fields(Document))


def documents_of(batch: pa.RecordBatch) -> Iterator[Document]:
    """The documents of a batch with the columns :data:`COLUMNS`, in order."""
    columns = [batch.column(name).to_pylist() for name in COLUMNS]
    columns[-1] = [_parsed(meta) if meta else {} for meta in columns[-1]]
    return map(Document, *columns)


def _parsed(meta: str) -> Any:
    """Parse JSON with Python's parser if its numbers are beyond the fast one, which would round them."""
    if _LONG.search(meta) is None:
        return orjson.loads(meta)
    with deep():
        return json.loads(meta)


def place_in(batch: pa.RecordBatch, row: int) -> str:
    """The name of a document of a batch in messages."""
    return place(*(batch.column(name)[row].as_py() for name in ("source", "origin_file", "origin_row")))


def place(source: str, file: str, row: int) -> str:
    """A document's name in messages and for ``headrace why``."""
    return f"{source}:{file}:{row}"
