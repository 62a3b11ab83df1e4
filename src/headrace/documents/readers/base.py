"""What a reader is: a file in, records out, and an account of everything that is not a record.

To add a format, subclass :class:`Reader` in a new file, override ``read`` (and ``split`` if a large file can be read in
parts), and register it in ``readers/__init__.py``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headrace.documents.fields import MISSING, paths, take
from headrace.documents.sources import InputFile
from headrace.errors import MemoryShareError
from headrace.nesting import deep
from headrace.recipe.schema import MAX_DOCUMENT, Source

EXCERPT = 200  # characters of a bad row that go to quarantine
# A row group as Python objects, Arrow arrays and encoded pages, plus the compressors of ten columns. Over 140 MB of
# JSON Lines, a worker peaked 49 MB above its base with the system allocator, 101 MB with Arrow's own (mimalloc).
TASK_MEMORY = 112 << 20
# On top of that, a task's memory has room for documents of this size: a row group of them is written at once.
ORDINARY = 8 << 20
# A document of 95 MB peaked at 5.8 times its size: one emoji makes every character take four bytes in memory.
COPIES = 6
_SURROGATES = re.compile("[\ud800-\udfff]")
PART_BYTES = 32 << 20  # a shard holds 32 MB of text, so a part of this size makes about one


class Repaired(str):
    """Text standing in for something that is not quite text: good enough for a side field, but not for a document.

    Attributes:
        error: what is wrong with it.
    """

    error: str

    @classmethod
    def of(cls, text: str, error: str) -> Repaired:
        """The text, with what is wrong with it."""
        made = cls(unicode(text))
        made.error = error
        return made


class Message(NamedTuple):
    """A turn of a conversation, as read.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``.
        content: the text.
        loss: whether to learn it, if the data say so; None leaves that to the role.
        fields: the turn's other keys.
    """

    role: str
    content: str
    loss: bool | None = None
    fields: Mapping[str, Any] = {}


@dataclass(slots=True)
class Record:
    """One document, as read.

    Attributes:
        row: 0-based row or line in the file.
        text: the text; empty for conversations, because their turns are normalized before they are joined.
        fields: the other fields.
        turns: the messages of a conversation, or None.
        tools: the tools that a conversation may use, as OpenAI's ``tools``.
        plain: whether it is a file without fields of its own: what it has says where it lies.
    """

    row: int
    text: str
    fields: dict[str, Any]
    turns: list[Message] | None = None
    tools: list[Any] | None = None
    plain: bool = False


@dataclass(slots=True)
class Bad:
    """A row that cannot be a document: what is wrong, and how it starts.

    Attributes:
        rows: how many rows it stands for, all alike, starting at ``row``.
    """

    row: int
    error: str
    excerpt: str = ""
    rows: int = 1


@dataclass(slots=True)
class Skipped:
    """Rows that are empty but no error, such as blank lines: the first, and how many."""

    row: int
    rows: int = 1


@dataclass(slots=True)
class Lost:
    """What a damaged container promised but did not deliver: it goes to quarantine, but is not a row.

    Attributes:
        row: the number of the first missing row.
        error: what is wrong with the container.
        rows: rows that the container claims to hold and that were not read.
        bytes: if rows are not known, the bytes of the file that were not read; a truncated stream does not say how much
            is missing, so it counts as many as there are.
        excerpt: the beginning of the row in which it broke off.
    """

    row: int
    error: str
    rows: int = 0
    bytes: int = 0
    excerpt: str = ""


Item = Record | Bad | Skipped | Lost


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a file: bytes or row groups [begin, end); by default all of it.

    Attributes:
        begin: first byte or row group.
        end: the position after the last one; None reads to the end.
        row: the number of its first row, or None if not known yet.
    """

    begin: int = 0
    end: int | None = None
    row: int | None = 0


@dataclass
class Tally:
    """The limits of reading, and what is known about the container apart from its records.

    Attributes:
        limit: maximum size of a document in bytes, as stored in its file.
        memory: bytes of data that the task may hold.
        advance: called with the number of bytes of content read so far since the last call.
        read: rows read.
        seen: the field names of the first row without text.
    """

    limit: int = MAX_DOCUMENT
    memory: int = 1 << 30
    advance: Callable[[int], None] = lambda size: None
    read: int = 0
    seen: list[str] = field(default_factory=list)

    def room(self, copies: int = COPIES) -> int:
        """The largest document, in bytes, that fits in memory if processing it takes so many times its size."""
        return min(self.limit, max(ORDINARY, (self.memory - TASK_MEMORY) // copies))

    def too_large(self, row: int, size: int, begins: bytes = b"") -> Bad:
        """What a row with more bytes than fit is: bad if above the limit, on which all runs agree.

        Raises:
            MemoryShareError: it is within the limit, so only this run lacks the memory for it.
        """
        if size > self.limit:
            return Bad(row, too_large(size, self.limit), excerpt(begins))
        raise MemoryShareError(
            f"A document of {size:,} bytes needs more than the {self.memory:,} bytes of memory that a task may use.",
            f"line {row + 1}",
            "Raise --memory, or lower documents.max_document: larger documents go to quarantine.",
        )


class Reader(ABC):
    """Reads one format, streaming: at most one document and one block of the file are in memory."""

    def split(self, file: InputFile) -> list[Part]:
        """Parts of about ``PART_BYTES`` that can be read independently; by default one, the whole file."""
        return [Part()]

    @abstractmethod
    def read(self, file: InputFile, part: Part, source: Source, tally: Tally) -> Iterator[Item]:
        """Yield one item for each row of the part, in order, and count the rows in ``tally.read``.

        If the file is damaged, the last item is a :class:`Lost`, which is not a row.

        Raises:
            UserError: the file is gone, or no row can have such a field.
        """


def excerpt(value: Any, show: Callable[[Any], str] = str) -> str:
    """The beginning of a bad row, or of a value that is not text, for display."""
    if isinstance(value, bytes):
        return value[: 4 * EXCERPT].decode("utf-8", "replace")[:EXCERPT]
    try:
        with deep():
            return show(value)[:EXCERPT]
    except Exception:  # a class of the user's own
        return ""


def lost(rows: int, bytes: int) -> str:
    """How much was lost, in words."""
    return " and ".join(f"{n:,} {unit}" for n, unit in ((rows, "rows"), (bytes, "bytes")) if n) or "nothing"


TOO_LARGE = "too large"


def too_large(size: int, limit: int) -> str:
    """What is wrong with a document larger than the limit."""
    return f"{TOO_LARGE}: {size:,} bytes, limit {limit:,} (documents.max_document)"


def unicode(text: str) -> str:
    """Text with lone surrogates, which UTF-8 cannot represent, replaced by U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def not_utf8(error: UnicodeDecodeError) -> str:
    """A phrase for bytes that are not UTF-8; lone surrogates, as in CESU-8, are named as such."""
    byte = error.object[error.start]
    after = error.object[error.start + 1 : error.start + 2]
    if byte == 0xED and after >= b"\xa0":
        return f"not UTF-8: a lone surrogate at byte {error.start}"
    return f"not UTF-8: byte 0x{byte:02x} at byte {error.start}"


def document(row: int, value: Any, name: str, tally: Tally) -> Record | Bad:
    """The record in a parsed row: the field ``name`` (possibly nested) is the text; the other fields are kept."""
    if not isinstance(value, dict):
        return Bad(row, f"the row holds {kind(value)}, not an object with fields", excerpt(value))
    text = take(value, name)
    if isinstance(text, Repaired):
        return Bad(row, f"the field {name!r} is {text.error}", excerpt(text))
    if isinstance(text, str):
        return Record(row, text, value)
    if isinstance(text, bytes):
        try:
            return Record(row, text.decode("utf-8"), value)
        except UnicodeDecodeError as error:
            return Bad(row, not_utf8(error), excerpt(text))
    if text is MISSING:
        tally.seen = tally.seen or paths(value)
        return Bad(
            row, f"no text in the field {name!r}; the row's other fields: {', '.join(map(str, value))}"[:EXCERPT]
        )
    if text is None:
        return Bad(row, null_text(name))
    return Bad(row, f"the field {name!r} holds {kind(text)}, not text", excerpt(text))


def null_text(name: str) -> str:
    """What is wrong with a row whose text is null."""
    return f"the field {name!r} is null"


_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", str: "text"}


def kind(value: Any) -> str:
    """The kind of a JSON value, in words."""
    return "null" if value is None else _KINDS.get(type(value), type(value).__name__)
