"""From a record to the row that is written: normalized text, provenance, and the rest in meta."""

from __future__ import annotations

from typing import Any

from headrace.documents.fields import MISSING, find, paths, take
from headrace.documents.normalise import normaliser
from headrace.documents.readers.base import Bad, Message, Record, excerpt, kind, too_large, unicode
from headrace.documents.readers.conversations import JOIN
from headrace.documents.readers.json_values import dump
from headrace.documents.sink import Row
from headrace.recipe.schema import MAX_DOCUMENT, Source

COLUMNS = ("license", "repo", "path", "language")


class RowMaker:
    """Creates rows from the records of one source.

    Args:
        name: the source's name.
        source: its section of the recipe: which fields fill which columns, and the constants.
        normalise: the normalization method.
        limit: maximum bytes of a document.

    Attributes:
        named: field named in the recipe -> number of records that have it.
        unnamed: the fields of the first record that lacks one of them; None if none does. Plain files count as neither.
    """

    def __init__(self, name: str, source: Source, normalise: str, limit: int = MAX_DOCUMENT) -> None:
        self._name = name
        self._limit = limit
        self._normalise = normaliser(normalise)
        constants = {"license": source.license, "repo": source.repo, "path": None, "language": source.language}
        mapped = source.fields.model_dump()
        self._columns = [(c, mapped[c], constants[c]) for c in COLUMNS]
        self._names = frozenset(COLUMNS) if not any(mapped.values()) else None
        self._constants = [constants[c] for c in COLUMNS]
        self.named = {name: 0 for name in mapped.values() if name is not None}
        self.unnamed: list[str] | None = None

    def make(self, file: str, record: Record) -> tuple[Row, int] | Bad:
        """The row and its length in characters (code points), or why there is none."""
        fields = record.fields
        if record.turns is None:
            text, spans = self._normalise(record.text), None
        else:
            text, spans = self._joined(record.turns)
            if record.tools:
                spans[0]["tools"] = record.tools
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            return Bad(record.row, f"a lone surrogate at character {error.start}", excerpt(text))
        if len(data) > self._limit:
            return Bad(record.row, too_large(len(data), self._limit), excerpt(text))
        try:
            if self._names is not None and self._names.isdisjoint(fields):
                columns = self._constants
            else:
                columns = [self._column(record, *about) for about in self._columns]
            meta = dump(fields, _plain) if fields else None
            turns = dump(spans, _plain) if spans else None
        except TypeError as error:
            return Bad(record.row, f"a field cannot be kept as JSON: {error}", excerpt(text))
        return (data, self._name, file, record.row, *columns, meta, turns), len(text)  # type: ignore[return-value]

    def _joined(self, messages: list[Message]) -> tuple[str, list[dict[str, Any]]]:
        """The text of a conversation, and its turns: the position of each in code points, and its other keys.

        Turns are normalized separately, so that their positions hold in the joined text.
        """
        pieces: list[str] = []
        spans: list[dict[str, Any]] = []
        at = 0
        for role, said, loss, fields in messages:
            content = self._normalise(said)
            span = {"role": role, "start": at, "end": at + len(content)}
            spans.append(span | ({} if loss is None else {"loss": loss}) | ({"fields": fields} if fields else {}))
            pieces.append(content)
            at += len(content) + len(JOIN)
        return JOIN.join(pieces), spans

    def _column(self, record: Record, name: str, named: str | None, constant: str | None) -> str | None:
        """A column's value: the data's own field if present, otherwise the source's constant.

        A field named in the recipe may hold a number or a list of names; one that merely has the column's name counts
        only if it is text. A plain file has but the latter, unless the recipe names one of these.
        """
        fields, mapped, key = record.fields, named is not None, named or name
        value = find(fields, key) if mapped else fields.get(key)
        if mapped and value is not MISSING:
            self.named[key] += 1
        elif mapped and record.plain:
            mapped, key, value = False, name, fields.get(name)
        elif mapped and self.unnamed is None:
            self.unnamed = paths(fields)
        if isinstance(value, bytes):
            value = _plain(value)
        if isinstance(value, list) and mapped:
            value = ", ".join(str(item) for item in value if item is not None) or None
        elif mapped and isinstance(value, int | float):
            value = str(value)
        if not isinstance(value, str):
            return constant
        take(fields, key)
        return unicode(value)


def _plain(value: Any) -> Any:
    """Bytes as text: unchanged if they are UTF-8, otherwise hexadecimal digits."""
    if not isinstance(value, bytes):
        raise TypeError(f"{kind(value)} in a field")
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.hex()
