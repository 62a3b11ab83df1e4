"""Samples read back: files that hold rows one by one (:mod:`headrace.formats.samples`). Untrusted: whatever a file
promises is checked."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from headrace.formats.files import Facts, RowFile, put_ids
from headrace.formats.format import Shape
from headrace.formats.placed import Bytes, size_of, unreadable
from headrace.formats.samples import FIELDS
from headrace.sequence.reader import ELSEWHERE, SEGMENT, Segments
from headrace.sequence.windows import KINDS

MOST_ROW = 1 << 30  # bytes of a row
_CODES = {name: code for code, name in KINDS.items()}


class StoredRow(NamedTuple):
    """A row as it is stored.

    Attributes:
        tokens: its ids, integers[L + 1].
        loss: uint8 or bool[L + 1]; None where the file has no masks.
        segments: JSON, as of :class:`headrace.formats.samples.Sample`.
    """

    tokens: np.ndarray
    loss: np.ndarray | None = None
    segments: bytes = b"null"


class SampleFile(RowFile):
    """A file of rows that are stored one by one.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.

    Raises:
        UserError: it is damaged, or something else.
    """

    def __init__(self, path: Path, facts: Facts) -> None:
        self.path, self.facts = path, facts

    @abstractmethod
    def stored(self, row: int) -> StoredRow:
        """A row; :class:`UserError` if it is damaged."""

    def shape(self) -> Shape:
        """What the file says of itself: its first row tells the length."""
        if not len(self):
            return Shape(0, 0, np.dtype(np.uint16))
        tokens = self.stored(0).tokens
        return Shape(len(self), len(tokens) - 1, np.dtype(tokens.dtype.newbyteorder("=")))

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens."""
        for row in range(start, stop):
            tokens = self._full(row, self.stored(row).tokens)
            put_ids(tokens[None], out[row - start][None], self.facts.vocab_size, str(self.path), row)

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss; all do in a file without masks."""
        out = np.ones((stop - start, self.facts.seq_len), dtype=bool)
        for row in range(start, stop):
            loss = self.stored(row).loss
            if loss is not None:
                mask = self._full(row, loss).view(np.uint8)
                if (mask > 1).any():
                    raise self.wrong(f"the loss mask of row {row:,} has other values than 0 and 1")
                out[row - start] = mask[1:]
        return out

    def segments(self, start: int, stop: int) -> Segments | None:
        """The segments of rows; None if the file does not tell those of one."""
        rows, bounds = [], [0]
        for row in range(start, stop):
            found = self._segments(row)
            if found is None:
                return None
            rows.append(found)
            bounds.append(bounds[-1] + len(found))
        every = np.concatenate([np.empty(0, SEGMENT), *rows])
        return Segments(np.array(bounds), {name: np.ascontiguousarray(every[name]) for name in self.facts.fields})

    def wrong(self, why: str) -> Exception:
        """The error for a file that is not what it should be."""
        return unreadable(self.path, why)

    def _full(self, row: int, values: np.ndarray) -> np.ndarray:
        if len(values) != self.facts.seq_len + 1:
            raise self.wrong(f"row {row:,} has {len(values):,} tokens, not {self.facts.seq_len + 1:,}")
        return values

    def _segments(self, row: int) -> np.ndarray | None:
        try:
            told = orjson.loads(self.stored(row).segments)
            if told is None:
                return None
            out = np.zeros(len(told), dtype=SEGMENT)
            for to, one in zip(out, told, strict=True):
                self._put(to, one)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
            raise self.wrong(f"the segments of row {row:,} are damaged") from None
        ends = np.cumsum(out["length"].astype(np.int64))
        if not len(out) or (out["start"] != np.append(0, ends[:-1])).any() or ends[-1] != self.facts.seq_len + 1:
            raise self.wrong(f"the segments of row {row:,} do not fill it")
        return out

    def _put(self, to: np.void, one: dict[str, Any]) -> None:
        to["kind"] = _CODES[one["kind"]]
        to["start"], to["length"] = one["start"], one["length"]
        if one["kind"] == "padding" or not self.facts.sources:
            return
        to["source"] = self.facts.sources.index(one["source"])
        for field in ("epoch", "offset"):
            to[FIELDS[field]] = one[field]
        to["row"] = ELSEWHERE if one["document"] is None else one["document"]


class IndexedFile(SampleFile):
    """Samples behind a table of where they are, as :func:`headrace.formats.samples.write_indexed` writes them."""

    def __init__(self, path: Path, facts: Facts) -> None:
        super().__init__(path, facts)
        size = size_of(path)
        self._bytes = Bytes(path)
        try:
            self._offsets = self._table(size)
        except BaseException:
            self.close()
            raise

    def _table(self, size: int) -> np.ndarray:
        """int64[n + 1]: where each sample begins, and where the last ends."""
        count = int(self._numbers(0, 1)[0]) if size >= 8 else -1
        head = 4 * (count + 2)
        if count < 0 or head > size:
            raise self.wrong("it does not say where its rows are")
        offsets = self._numbers(4, count + 1)
        if offsets[0] < head or offsets[-1] > size or (np.diff(offsets) < 0).any():
            raise self.wrong("it does not say where its rows are")
        return offsets

    def _numbers(self, at: int, count: int) -> np.ndarray:
        out = np.empty(count, dtype="<u4")
        self._bytes.read(out, at)
        return out.astype(np.int64)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @property
    def between(self) -> bytes:
        """What stands between the table and the samples."""
        return self.read(4 * (len(self) + 2), int(self._offsets[0]))

    def item(self, row: int) -> memoryview:
        """The bytes of a sample."""
        return memoryview(self.read(int(self._offsets[row]), int(self._offsets[row + 1])))

    def read(self, start: int, stop: int) -> bytes:
        """Some bytes of the file."""
        if stop - start > MOST_ROW:
            raise self.wrong(f"a row has more than {MOST_ROW >> 20:,} MB")
        out = np.empty(stop - start, dtype=np.uint8)
        self._bytes.read(out, start)
        return out.tobytes()

    def fields(self, row: int, sizes: list[int | None]) -> list[memoryview]:
        """The fields of a sample: first the sizes of those that have no fixed one, uint32, then the fields."""
        data, free = self.item(row), sizes.count(None)
        told = iter(np.frombuffer(data[: 4 * free], dtype="<u4").tolist() if len(data) >= 4 * free else [])
        at, out = 4 * free, []
        for size in sizes:
            length = next(told, len(data)) if size is None else size
            out.append(data[at : at + length])
            at += length
        if at != len(data):
            raise self.wrong(f"row {row:,} does not have the size that it says")
        return out

    def values(self, row: int, data: memoryview, dtype: np.dtype) -> np.ndarray:
        """Bytes as an array."""
        if len(data) % dtype.itemsize:
            raise self.wrong(f"row {row:,} ends within a number")
        return np.frombuffer(data, dtype=dtype.newbyteorder("<"))

    def close(self) -> None:
        """Let go of the file."""
        self._bytes.close()


def index_beside(file: Path, most: int = 64 << 20) -> dict[str, Any]:
    """The ``index.json`` in a file's folder.

    Raises:
        UserError: it is not there, or no index.
    """
    path = file.with_name("index.json")
    if size_of(path) > most:
        raise unreadable(path, f"it has more than {most:,} bytes")
    try:
        found = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise unreadable(path, "it is no index")
    return found
