"""A part of a document's text, however long the text is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq

from headrace.documents.store import text_buffers
from headrace.flow.artifact import Artifact
from headrace.report.markup import Markup, element, join
from headrace.view.large import blocks, texts_of

PIECE = 20_000  # characters of a text on one page
BLOCK = 1 << 18  # bytes whose characters are counted at a time


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
    """A part of a document's text; of a large one, no more is in memory.

    Args:
        documents: the documents.
        row: the document's row.
        start: its first character; beyond the end, the last piece is shown.
        most: characters.

    Raises:
        IndexError: there is no such row.
    """
    found = piece_in(_blocks(documents, row), start, most)
    if found.text or start == 0:
        return found
    return piece_in(_blocks(documents, row), max(0, found.characters - most), most)


def beginning_of(documents: Artifact, row: int, most: int) -> tuple[str, bool]:
    """The first bytes of a document's text, without a character that they cut, and whether there are more.

    Raises:
        IndexError: there is no such row.
    """
    begun = bytearray()
    for block in _blocks(documents, row):
        begun += block[: most + 1 - len(begun)].tobytes()
        if len(begun) > most:
            break
    return begun[:most].decode("utf-8", "ignore"), len(begun) > most


def _blocks(documents: Artifact, row: int) -> Iterator[np.ndarray]:
    """The text of a document as UTF-8, uint8[n] at a time.

    Raises:
        IndexError: there is no such row.
    """
    shard, at = documents.locate(row)
    path = documents.shard_path(shard)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if at < rows:
                large = blocks(file, path, group)
                if large is not None:
                    yield from large
                    return
                with texts_of(file, path, group) as texts:
                    data = text_buffers(texts.slice(at, 1).combine_chunks())[0]
                    for first in range(0, len(data), BLOCK):
                        yield data[first : first + BLOCK]
                return
            at -= rows


def piece_in(text: Iterable[np.ndarray], start: int = 0, most: int = PIECE) -> Piece:
    """A part of a text given as UTF-8, uint8[n] at a time; nothing beyond its end."""
    part, total, size = bytearray(), 0, 0
    for block in text:
        begins = (block & 0xC0) != 0x80  # bytes that continue no character
        count = int(np.count_nonzero(begins))
        if total + count > start and total <= start + most:
            places = np.flatnonzero(begins)
            low = int(places[start - total]) if start >= total else 0
            high = int(places[start + most - total]) if start + most < total + count else len(block)
            part += block[low:high].tobytes()
        total += count
        size += len(block)
    said = part.decode("utf-8", "replace")
    start = min(start, total)
    return Piece(said, start, start + len(said), total, size)


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
