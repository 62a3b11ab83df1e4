"""Documents in files that no run has read yet: a page of rows at a time, from any row on, by headrace's own readers.

Rows are streamed, so that the first are there at once whatever the size of the file. The next page goes on where the
last one ended, while the viewer remembers it; another row is found by the parts of the file that can be read for
themselves, or else by reading all before it, in the background.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from headrace.documents.checked_file import ChangedInput
from headrace.documents.readers import reader
from headrace.documents.readers.base import (
    COPIES,
    TASK_MEMORY,
    TOO_LARGE,
    Bad,
    Item,
    Lost,
    Part,
    Record,
    Skipped,
    Tally,
    excerpt,
)
from headrace.documents.readers.streams import blocks, count_lines
from headrace.documents.sources import InputFile, list_files
from headrace.errors import UserError
from headrace.flow.storage import cannot_read
from headrace.recipe.schema import Source

ROWS = 25  # of a page
PAGE_BYTES = 4 << 20  # characters of a page, about: a page ends after the row that goes beyond
KEPT_BYTES = 48 << 20  # characters of pages that are remembered
BEGINNING = 1 << 16  # bytes of a file that show what it holds
CURSORS = 4  # places where reading can go on; each holds a decompressor's window
LARGEST = 24 << 20  # bytes of a row; larger ones are shown by their beginning
PATIENCE = 0.2  # seconds that a page waits for its rows
FIELDS = ("text", "content", "code", "raw_content", "markdown", "body", "document", "article", "completion")
"""Names of fields that hold the text, in the order they are tried."""
CHAT = frozenset({"messages", "conversations", "conversation", "instruction", "message_id"})


@dataclass(frozen=True)
class Rows:
    """Rows of a file.

    Attributes:
        items: in order.
        next: the row after the last; None at the end of the file.
    """

    items: list[Item]
    next: int | None


@dataclass
class Search:
    """Rows that are looked for.

    Attributes:
        at: the row that was reached.
        given_up: whether nobody waits for it any more.
    """

    at: int = 0
    given_up: bool = False
    found: Future[Rows] = field(default_factory=Future)


@dataclass
class _Cursor:
    items: Iterator[Item]
    next: int


Key = tuple[int, int, str | None]


class RecordFiles:
    """Files of documents, in order. All methods may be called from several threads.

    Args:
        path: a file, or a folder of them.

    Raises:
        UserError: there are none.

    Attributes:
        files: those found.
    """

    def __init__(self, path: Path) -> None:
        self.files: list[InputFile] = list_files("files", _source([str(path)]), 0, path.parent)
        self._lock = threading.Lock()
        self._stats: dict[int, Any] = {}
        self._fields: dict[int, tuple[str, str]] = {}
        self._cursors: list[tuple[tuple[int, str, str], _Cursor]] = []
        self._pages: OrderedDict[Key, Rows] = OrderedDict()
        self._searches: OrderedDict[Key, Search] = OrderedDict()
        self._lines: dict[int, dict[int, int]] = {}  # file -> part -> its lines

    def rows(self, number: int, row: int, text: str | None) -> Rows | Search:
        """A page of rows; or how far they were looked for, to be asked again.

        Args:
            number: which file.
            row: the first row.
            text: the field with the text; None takes the one that :meth:`text_field` finds.

        Raises:
            UserError: the file is gone, or cannot be read.
        """
        self._see(number)
        key = number, row, text
        with self._lock:
            if key in self._pages:
                self._pages.move_to_end(key)
                return self._pages[key]
            search = self._searches.get(key)
            if search is None:
                search = self._searches[key] = Search()
                while len(self._searches) > CURSORS:
                    self._searches.popitem(last=False)[1].given_up = True
                # A server that is stopped does not wait for it.
                threading.Thread(target=self._look, args=(key, search), daemon=True).start()
        try:
            return search.found.result(timeout=PATIENCE)
        except TimeoutError:
            return search

    def text_field(self, number: int) -> tuple[str, str]:
        """The field that holds the text of a file's rows, as its first rows tell, and the format that reads them."""
        self._see(number)
        with self._lock:
            found = self._fields.get(number)
        if found is None:
            found = self._field(self.files[number])
            with self._lock:
                self._fields[number] = found
        return found

    @property
    def readable(self) -> bool:
        """Whether these can be documents: not a table without a column of text."""
        name, format = self.text_field(0)
        return format not in ("parquet", "arrow") or _first(self.files[0], name)[0] is not None

    def row_count(self, number: int) -> int | None:
        """How many rows a file has, if it says so."""
        file = self.files[number]
        if file.format != "parquet":
            return None
        import pyarrow.parquet as pq

        from headrace.documents.readers.tables import FAILURES

        try:
            with pq.ParquetFile(file.url) as table:
                return int(table.metadata.num_rows)
        except FAILURES:  # its rows tell what is wrong
            return None

    def _see(self, number: int) -> None:
        """Forget what is known of a file that has changed."""
        file = self.files[number]
        try:
            found = os.stat(file.url)
        except OSError as error:
            raise cannot_read("The file", file.url, error) from None
        stamp = found.st_mtime_ns, found.st_size, found.st_ino
        with self._lock:
            if self._stats.setdefault(number, stamp) == stamp and file.size == found.st_size:
                return
            self._stats[number] = stamp
            self.files[number] = replace(file, size=found.st_size)
            self._cursors = [one for one in self._cursors if one[0][0] != number]
            self._lines.pop(number, None)
            self._fields.pop(number, None)
            for kept in (self._pages, self._searches):
                for key in [key for key in kept if key[0] == number]:
                    del kept[key]

    def _look(self, key: Key, search: Search) -> None:
        try:
            found = self._found(key, search)
            with self._lock:
                self._pages[key] = found
                while len(self._pages) > 1 and sum(map(_size, self._pages.values())) > KEPT_BYTES:
                    self._pages.popitem(last=False)
            search.found.set_result(found)
        except ChangedInput as error:
            search.found.set_exception(
                UserError("The file changed while it was read.", error.where, "Load this page again.")
            )
        except OSError as error:
            search.found.set_exception(cannot_read("The file", self.files[key[0]].url, error))
        except BaseException as error:
            search.found.set_exception(error)
        finally:
            with self._lock:
                if self._searches.get(key) is search:
                    del self._searches[key]

    def _found(self, key: Key, search: Search) -> Rows:
        number, row, text = key
        name, format = self.text_field(number) if text is None else (text, self.files[number].format)
        about = number, name, format
        cursor = self._cursor(about, row, search)
        items: list[Item] = []
        size = 0
        for item in cursor.items:
            stop = item.row + (item.rows if isinstance(item, Bad | Skipped) else not isinstance(item, Lost))
            search.at, cursor.next = item.row, stop
            if search.given_up:
                raise UserError("Nobody waits for these rows any more.", self.files[number].url, "Load them again.")
            if stop <= row and not isinstance(item, Lost):
                continue
            if not isinstance(item, Skipped):
                items.append(_begun(_from(item, row), self.files[number]))
                size += _size_of(item)
            if len(items) >= ROWS or size > PAGE_BYTES:
                with self._lock:
                    self._cursors = [*self._cursors[1 - CURSORS :], (about, cursor)]
                return Rows(items, stop)
        return Rows(items, None)

    def _cursor(self, about: tuple[int, str, str], row: int, search: Search) -> _Cursor:
        """Where to begin to read: as near before a row as is known."""
        with self._lock:
            near = [one for one in self._cursors if one[0] == about and one[1].next <= row]
            if near:
                best = max(near, key=lambda one: one[1].next)
                self._cursors.remove(best)
        number, name, format = about
        file = replace(self.files[number], format=format)
        parts = reader(format).split(file)
        first, begins = (0, 0) if row == 0 else self._part(number, file, parts, row, search)
        if near and best[1].next >= begins:
            return best[1]
        return _Cursor(_items(file, parts[first:], begins, name), begins)

    def _part(self, number: int, file: InputFile, parts: list[Part], row: int, search: Search) -> tuple[int, int]:
        """The part of a file that holds a row, and its first row; lines of the parts before it are counted once."""
        begins = 0
        for index, part in enumerate(parts[:-1]):
            told = parts[index + 1].row
            if told is None:
                with self._lock:
                    counts = self._lines.setdefault(number, {})
                if index not in counts:
                    counts[index] = count_lines(file, part, Tally())
                told = begins + counts[index]
            if row < told or search.given_up:
                return index, begins
            begins = search.at = told
        return len(parts) - 1, begins

    def _field(self, file: InputFile) -> tuple[str, str]:
        seen = _fields_of(file)
        if CHAT & set(seen):
            return "text", "chat"
        for name in [name for name in FIELDS if name in seen] or seen[:12]:
            if isinstance(_first(file, name)[0], Record):
                return name, file.format
        return "text", file.format


def holds_documents(path: Path) -> bool:
    """Whether a path is a file of JSON Lines that holds documents rather than rows of tokens: a look at its beginning,
    where opening it as rows would count its lines."""
    from headrace.formats.packed_jsonl import IDS

    if not path.is_file() or path.suffix.lower() != ".jsonl":
        return False
    with open(path, "rb") as file:
        return f'"{IDS}"'.encode() not in file.read(BEGINNING)


def _items(file: InputFile, parts: list[Part], row: int, name: str) -> Iterator[Item]:
    """The items of consecutive parts, the first of which begins with a row."""
    source, tally = _source([file.url], name), _tally()
    for part in parts:
        before = tally.read
        yield from reader(file.format).read(
            file, replace(part, row=row if part.row is None else part.row), source, tally
        )
        row += tally.read - before


def _fields_of(file: InputFile) -> list[str]:
    """The names of the fields of a file's rows; ``text`` for a file that is one text."""
    names: list[str] = []
    if file.format == "parquet":
        from headrace.documents.readers.parquet import column_names

        return sorted(column_names(file))
    if file.format == "arrow":
        from headrace.documents.readers.arrow import arrow_items

        next(arrow_items(file, _tally(), _passed, lambda schema: names.extend(schema.names)), None)
        return names
    if file.format == "csv":
        from headrace.documents.readers.csv import csv_items

        next(csv_items(file, _tally(), _passed, names.extend), None)
        return names
    item, tally = _first(file, "text")
    return ["text", *item.fields] if isinstance(item, Record) else tally.seen


def _passed(row: int, value: Any) -> Item:
    return Skipped(row)


def _first(file: InputFile, name: str) -> tuple[Item | None, Tally]:
    """The first row, and what its reading told."""
    tally = _tally()
    try:
        for item in reader(file.format).read(
            file, reader(file.format).split(file)[0], _source([file.url], name), tally
        ):
            if not isinstance(item, Skipped):
                return item, tally
    except ChangedInput:
        raise
    except UserError:  # a table without such a column
        pass
    return None, tally


def _source(files: list[str], text: str = "text") -> Source:
    return Source.model_validate({"files": files, "text": text or "text"})


def _tally() -> Tally:
    return Tally(limit=LARGEST, memory=TASK_MEMORY + COPIES * LARGEST)


def _from(item: Item, row: int) -> Item:
    """What is left of an item that stands for several rows from a row on."""
    if isinstance(item, Bad) and item.row < row:
        return replace(item, row=row, rows=item.row + item.rows - row)
    return item


def _begun(item: Item, file: InputFile) -> Item:
    """A document that is a whole file and too large for its reader, with its beginning."""
    if not isinstance(item, Bad) or item.excerpt or item.row or not item.error.startswith(TOO_LARGE):
        return item
    return replace(item, excerpt=excerpt(next(blocks(file, _tally()), b"")))


def _size_of(item: Item) -> int:
    if not isinstance(item, Record):
        return 0
    return len(item.text) + sum(len(turn.content) for turn in item.turns or ()) + 200


def _size(rows: Rows) -> int:
    return sum(map(_size_of, rows.items))
