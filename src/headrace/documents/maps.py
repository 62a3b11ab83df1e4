"""Apply user-defined maps to the documents of a source, between reading and writing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from headrace.documents.normalise import Normaliser
from headrace.documents.readers.base import Bad, excerpt, too_large
from headrace.documents.readers.json_values import dump, finite
from headrace.documents.sink import Row, table_of
from headrace.functions.calling import Function, Note, results
from headrace.functions.document import Document, place
from headrace.functions.failures import Failed

# Documents per call of a function that takes batches: enough to make calls cheap, few enough to hold.
BATCH_ROWS, BATCH_BYTES = 1024, 4 << 20


class Maps:
    """Takes rows and returns them changed: all functions in turn, one batch of rows at a time.

    Args:
        functions: the functions, in the recipe's order.
        normalise: the normalization, which changed texts go through again.
        note: called with each document before a function is; batches then hold one document.
        limit: maximum bytes of a document.
    """

    def __init__(self, functions: Sequence[Function], normalise: Normaliser, note: Note | None, limit: int) -> None:
        self._functions, self._normalise, self._note, self._limit = functions, normalise, note, limit
        self._held: list[Row] = []
        self._bytes = 0

    def add(self, row: Row) -> Iterator[tuple[Row, int] | tuple[str, Bad]]:
        """Add a row; yield those that are ready, as :meth:`end` does."""
        self._held.append(row)
        self._bytes += len(row[0])
        if self._note is not None or len(self._held) >= BATCH_ROWS or self._bytes >= BATCH_BYTES:
            yield from self.end()

    def end(self) -> Iterator[tuple[Row, int] | tuple[str, Bad]]:
        """Yield all rows so far: each with its length in characters, or a file's name and what is bad in it.

        Raises:
            UserError: a function failed, and the recipe asks to stop on errors.
        """
        rows, self._held, self._bytes = self._held, [], 0
        for function in self._functions:
            kept = []
            for row, made in zip(rows, self._changed(function, rows), strict=True):
                if isinstance(made, Failed):
                    text, source, file, number, *_ = row
                    yield file, Bad(number, function.failed(made, place(source, file, number)), excerpt(text))
                else:
                    kept.append(made)
            rows = kept
        for row in rows:
            yield row, len(row[0].decode())

    def _changed(self, function: Function, rows: list[Row]) -> list[Row | Failed]:
        if not rows:
            return []
        [batch] = table_of(rows).to_batches()
        made = results(function, batch, _text_of, self._note)
        return [self._row(function, row, change) for row, change in zip(rows, made, strict=True)]

    def _row(self, function: Function, row: Row, change: str | Document | Failed) -> Row | Failed:
        if isinstance(change, Failed):
            return change
        text = change if isinstance(change, str) else change.text
        try:
            data = self._normalise(text).encode()
            origin, columns, meta, turns = row[1:4], row[4:8], row[8], row[9]
            if isinstance(change, Document):
                columns = (change.license, change.repo, change.path, change.language)
                if not all(value is None or isinstance(value, str) for value in columns):
                    return function.wrong("gives a document whose license, repository, path or language is no text")
                if not isinstance(change.meta, dict):
                    return function.wrong(f"gives a document whose meta is {type(change.meta).__name__}, not a dict")
                "".join(value for value in columns if value is not None).encode()
                meta = dump(finite(change.meta), _refused) if change.meta else None
        except UnicodeEncodeError:
            return function.wrong("gives text with a lone surrogate, which UTF-8 cannot hold")
        except (TypeError, ValueError) as error:
            return function.wrong(f"gives a document whose meta is no JSON: {error}")
        if len(data) > self._limit:
            return function.wrong(f"gives a text {too_large(len(data), self._limit)}")
        return (data, *origin, *columns, meta, turns)


def _refused(value: Any) -> None:
    raise TypeError(f"it holds {type(value).__name__}")


def _text_of(made: Any) -> str | Document:
    """Check the result of a map.

    Raises:
        TypeError: it is neither text nor a document with text.
    """
    if hasattr(made, "as_py"):
        made = made.as_py()
    if isinstance(made, str) or (isinstance(made, Document) and isinstance(made.text, str)):
        return made
    if made is None:
        raise TypeError("gives None where it must give a text; to remove documents, write a measure and a rule")
    raise TypeError(f"gives {type(made).__name__} where it must give a text or a document")
