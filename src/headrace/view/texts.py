"""A part of a document's text, however long the text is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from headrace.documents.store import read_text
from headrace.flow.artifact import Artifact
from headrace.report.markup import Markup, element, join

T = TypeVar("T")
PIECE = 20_000  # characters of a text on one page
LARGE = 16 << 20  # bytes of a text whose memory is given back to the system
BLOCK = 1 << 20  # bytes whose characters are counted at a time


@dataclass(frozen=True)
class Piece:
    """A part of a text.

    Attributes:
        text: the part.
        start: its first character's place in the whole.
        end: the place behind its last.
        characters: of the whole.
        bytes: of the whole.
    """

    text: str
    start: int
    end: int
    characters: int
    bytes: int


def piece_of(documents: Artifact, row: int, start: int = 0, most: int = PIECE) -> Piece:
    """A part of a document's text.

    Args:
        documents: the documents.
        row: the document's row.
        start: its first character; beyond the end, the last piece is shown.
        most: characters.

    Raises:
        IndexError: there is no such row.
    """
    return _read(documents, row, lambda data: piece(data, start, most))


def beginning_of(documents: Artifact, row: int, most: int) -> tuple[str, bool]:
    """The first bytes of a document's text, without a character that they cut, and whether there are more.

    Raises:
        IndexError: there is no such row.
    """
    return _read(documents, row, lambda data: (data[:most].tobytes().decode("utf-8", "ignore"), len(data) > most))


def _read(documents: Artifact, row: int, look: Callable[[np.ndarray], T]) -> T:
    """Look at the text of a document; then the memory of a large one is given back to the system."""
    import pyarrow as pa

    data = read_text(documents, row)
    found, large = look(data), len(data) > LARGE
    del data
    if large:
        pa.default_memory_pool().release_unused()
    return found


def piece(data: np.ndarray, start: int = 0, most: int = PIECE) -> Piece:
    """A part of a text given as UTF-8, uint8[bytes]."""
    total = characters(data)
    start = start if start < total else max(0, total - most)
    first = _place(data, 0, start)
    stop = _place(data, first, most)
    text = data[first:stop].tobytes().decode("utf-8", "replace")
    return Piece(text, start, start + len(text), total, len(data))


def characters(data: np.ndarray) -> int:
    """The number of characters of a text given as UTF-8, uint8[bytes]."""
    return sum(_begins(data, at) for at in range(0, len(data), BLOCK))


def _begins(data: np.ndarray, at: int) -> int:
    """Characters that begin in a block: bytes that continue none."""
    return int(np.count_nonzero((data[at : at + BLOCK] & 0xC0) != 0x80))


def _place(data: np.ndarray, first: int, count: int) -> int:
    """The byte at which the character begins that stands ``count`` behind the one that begins at byte ``first``."""
    at = first
    while at < len(data):
        found = _begins(data, at)
        if count < found:
            return at + int(np.flatnonzero((data[at : at + BLOCK] & 0xC0) != 0x80)[count])
        count -= found
        at += BLOCK
    return len(data)


def marked(text: str, start: int, marks: Iterable[tuple[int, int]]) -> Markup:
    """A text with some of its characters marked.

    Args:
        text: a part of a text.
        start: the place of its first character in the whole.
        marks: spans of characters of the whole, ``[first, stop)``, in order.
    """
    parts: list[object] = []
    at = 0
    for first, stop in marks:
        low, high = (min(len(text), max(at, place - start)) for place in (first, stop))
        if high > low:
            parts += [text[at:low], element("mark", text[low:high])]
            at = high
    return join([*parts, text[at:]])
