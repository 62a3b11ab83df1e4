"""Rows one after another in files of token ids and nothing else: what Megatron, OLMo-core and nanotron train on.

Their formats differ in names and in how they say where documents end. Beside a file of tokens may lie:

- the loss, a byte per token: 1 if the token is learned as a target, as in datatrove's ``.loss`` and OLMo-core's label
  masks. Where all are learned there is no such file;
- headrace's own record of the segments, which other readers do not look at: :data:`headrace.sequence.reader.SEGMENT`
  by segment, rows in order.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from headrace.errors import UserError
from headrace.flow.task import Out, TaskContext
from headrace.formats.files import Facts, RowFile, check_ids, put_ids
from headrace.formats.format import BLOCK_TOKENS, Exported, Part, ReadableFormat, Shape, blocks
from headrace.formats.placed import Bytes, size_of, unreadable
from headrace.formats.segment_file import Records
from headrace.sequence.reader import Segments, SequenceReader
from headrace.sequence.windows import PADDING

Documents = Callable[[Mapping[str, np.ndarray], np.ndarray], None]
"""Takes columns of segments in order, and the token of the file at which each begins."""

Points = Callable[[int, int], np.ndarray]
"""Gives, in order, the tokens from one to another at which a document begins."""


class FlatFormat(ReadableFormat):
    """A format of files of token ids.

    Attributes:
        file_tokens: how many tokens a file has, about.
    """

    VERSION = 2
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = None
    file_tokens: ClassVar[int]

    @abstractmethod
    def loss_file(self, file: Path) -> Path:
        """The file of the loss that belongs to a file of tokens."""

    @abstractmethod
    def segments_file(self, file: Path) -> Path:
        """The file of segments that belongs to a file of tokens."""

    def rows_in_file(self, sequence: SequenceReader) -> int | None:
        """As many rows as :attr:`file_tokens` has room for."""
        return max(1, self.file_tokens // (sequence.seq_len + 1))

    # Writing.

    def place(self, ctx: TaskContext, file: Path) -> AbstractContextManager[Out]:
        """Where a task writes a file."""
        return ctx.file(file.as_posix())

    @contextmanager
    def documents(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> Iterator[Documents]:
        """Write where documents end, in the format's own way; called if segments are known."""
        yield lambda segments, begins: None

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write rows, what is known of their segments, and their loss if any token is not learned.

        Returns:
            ``masked``: whether there is a file of the loss; ``told``: whether there is headrace's own of segments.
        """
        file, width = Path(part.file), sequence.seq_len + 1
        loss: IO[bytes] | None = None
        with ExitStack() as stack:

            def begin(name: Path) -> IO[bytes]:
                return stack.enter_context(open(stack.enter_context(self.place(ctx, name)).path, "wb"))

            tokens = begin(file)
            first = sequence.segments_in(part.start, min(part.start + 1, part.stop))
            if first is not None:
                documents = stack.enter_context(self.documents(ctx, sequence, part))
                records = begin(self.segments_file(file))
            for start, stop in blocks(sequence, part):
                tokens.write(np.ascontiguousarray(sequence.rows(start, stop)).data)
                found, learned = sequence.segments_in(start, stop), sequence.targets(start, stop)
                if found is not None:
                    columns = {name: c[found.bounds[0] : found.bounds[-1]] for name, c in found.columns.items()}
                    row = np.repeat(np.arange(start - part.start, stop - part.start), np.diff(found.bounds))
                    documents(columns, row * width + columns["start"])
                    records.write(found.records().tobytes())
                    if (columns["kind"] == PADDING).any():
                        learned &= ~found.padding(sequence.seq_len)
                if loss is None and not learned.all():
                    loss = begin(self.loss_file(file))
                    write_learned(loss, start - part.start, width)
                if loss is not None:
                    loss.write(np.pad(learned, ((0, 0), (1, 0))).data)
                ctx.progress(rows=stop - start, bytes=(stop - start) * width * sequence.dtype.itemsize)
        return {"masked": loss is not None, "told": first is not None}

    def close(
        self, ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part], results: Sequence[dict[str, Any]]
    ) -> None:
        """Where one file of a sequence has a loss, give all of them one: readers ask for as many as files of tokens."""
        masked = {part.sequence for part, result in zip(parts, results, strict=True) if result["masked"]}
        for part, result in zip(parts, results, strict=True):
            if part.sequence in masked and not result["masked"]:
                width = sequences[part.sequence].open().seq_len + 1
                with self.place(ctx, self.loss_file(Path(part.file))) as out, open(out.path, "wb") as file:
                    write_learned(file, part.rows, width)

    # Reading.

    def beside(self, file: Path) -> tuple[Path, ...]:
        """The loss and the segments."""
        return self.loss_file(file), self.segments_file(file)

    def stored(self, file: Path) -> np.dtype:
        """The type of a file's ids, as far as it can be known.

        Raises:
            UserError: the file is damaged or of another format.
        """
        return guess(file)

    def points(self, file: Path, tokens: int) -> Points | None:
        """Where the documents of a file begin; None if nothing tells.

        Raises:
            UserError: what tells is damaged.
        """
        return None

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Rows of ``seq_len`` + 1 tokens without overlap; what is left at the end of a file is no row."""
        if seq_len is None:
            raise UserError(
                "The file is one line of tokens and does not say how long a sequence is.",
                str(file),
                "Say it: open_sequence(..., seq_len=2048) or --sequence-length 2048.",
            )
        stored = self.stored(file)
        dtype = min(stored, np.dtype(np.uint32), key=lambda dtype: dtype.itemsize)
        return Shape(tokens_in(file, stored) // (seq_len + 1), seq_len, dtype)

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file of tokens and what lies beside it."""
        stored = facts.dtype if facts.manifest else self.stored(file)
        tokens, (loss, records) = tokens_in(file, stored), self.companions(file, facts)
        points = self.points(file, tokens) if records is None else None
        return FlatFile(file, facts, stored, tokens, facts.seq_len + 1, loss, records, points)

    def companions(self, file: Path, facts: Facts) -> tuple[Path | None, Path | None]:
        """The files of the loss and of segments, where there should be such; of the loss, also where there is one. Only
        segments that a manifest tells of are taken for ours."""
        loss, records = self.loss_file(file), self.segments_file(file)
        told = [any(path.match(name) for name in facts.entries) for path in (loss, records)]
        return loss if told[0] or loss.exists() else None, records if told[1] and facts.manifest else None


def write_learned(file: IO[bytes], rows: int, width: int) -> None:
    """Write the loss of rows in which every target is learned; a row's first token is no target."""
    block = np.ones((max(1, BLOCK_TOKENS // width), width), dtype=np.uint8)
    block[:, 0] = 0
    for start in range(0, rows, len(block)):
        file.write(block[: rows - start].data)


def tokens_in(path: Path, stored: np.dtype) -> int:
    """How many ids a file has room for.

    Raises:
        UserError: it does not end with a whole one.
    """
    size = size_of(path)
    if size % stored.itemsize:
        raise unreadable(path, f"its {size:,} bytes are no whole number of ids of {stored.itemsize} bytes")
    return size // stored.itemsize


def guess(path: Path) -> np.dtype:
    """The type of ids in a file that does not tell: two bytes, four or eight.

    Of four bytes the upper half is the upper half of an id, which in all vocabularies so far is less than 16; if every
    second number of two bytes is, no text in ids of two bytes explains it. Of eight bytes the upper four are 0.
    """
    size_of(path)
    with open(path, "rb") as file:
        head = file.read(BLOCK_TOKENS)
    if head.startswith(b"\x93NUMPY"):
        raise unreadable(path, "it is a NumPy array with a header, where ids alone are read")
    upper = np.frombuffer(head[: len(head) // 4 * 4], dtype="<u2")[1::2]
    if not upper.size or upper.max() >= 16:
        return np.dtype(np.uint16)
    halves = np.frombuffer(head[: len(head) // 8 * 8], dtype="<u4")
    return np.dtype(np.uint64 if halves.size and not halves[1::2].any() and halves[::2].any() else np.uint32)


class FlatFile(RowFile):
    """A file of tokens and what lies beside it.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        stored: the type of its ids.
        tokens: how many it has.
        stride: from the first token of a row to that of the next: L + 1, or L if rows share a token.
        loss: the file of the loss; None if all tokens are learned.
        records: headrace's own file of segments.
        points: where documents begin, if there is no such file.

    Raises:
        UserError: they do not fit together.
    """

    def __init__(
        self,
        path: Path,
        facts: Facts,
        stored: np.dtype,
        tokens: int,
        stride: int,
        loss: Path | None,
        records: Path | None,
        points: Points | None,
    ) -> None:
        self.path, self.facts, self._stored, self._stride = path, facts, stored, stride
        self._width = facts.seq_len + 1
        self._rows = max(0, tokens - (self._width - stride)) // stride
        self._points, self._bytes = points, Bytes(path)
        self._records = None if records is None else Records(records, self._rows, self._width, facts.fields)
        if loss is not None and size_of(loss) != tokens:
            raise unreadable(loss, f"it has {size_of(loss):,} bytes, one for each of {tokens:,} tokens are read")
        self._loss = None if loss is None else Bytes(loss)

    def __len__(self) -> int:
        return self._rows

    def read(self, first: int, out: np.ndarray) -> None:
        """Fill an array of the stored type from a token on."""
        self._bytes.read(out, first * self._stored.itemsize)

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens, read to where they go if they need no conversion."""
        if start == stop:
            return
        where, vocab_size = str(self.path), self.facts.vocab_size
        if self._stride == self._width and out.dtype.itemsize == self._stored.itemsize and out.flags.c_contiguous:
            self.read(start * self._width, out.view(self._stored))
            check_ids(out.view(self._stored), out.dtype, vocab_size, where, start)
        else:
            line = np.empty((stop - start - 1) * self._stride + self._width, dtype=self._stored)
            self.read(start * self._stride, line)
            put_ids(self._windows(line), out, vocab_size, where, start)

    def _windows(self, line: np.ndarray) -> np.ndarray:
        return np.lib.stride_tricks.sliding_window_view(line, self._width)[:: self._stride]

    def targets(self, start: int, stop: int) -> np.ndarray:
        """The loss; everywhere if there is no file of it."""
        if self._loss is None or start == stop:
            return np.ones((stop - start, self.facts.seq_len), dtype=bool)
        line = np.empty((stop - start - 1) * self._stride + self._width, dtype=np.uint8)
        self._loss.read(line, start * self._stride)
        if line.max() > 1:
            raise unreadable(self._loss.path, f"rows {start} to {stop} have bytes that are neither 0 nor 1")
        return self._windows(line.view(bool))[:, 1:].copy()

    def segments(self, start: int, stop: int) -> Segments | None:
        """As headrace wrote them, or pieces of documents; None if nothing tells."""
        if self._records is not None:
            return self._records.segments(start, stop)
        if self._points is None:
            return None
        first, end = start * self._stride, stop * self._stride
        return cut(self._points(first, end), first, end, self._stride, self._width)

    def close(self) -> None:
        """Let go of the files."""
        for file in (self._bytes, self._loss, self._records):
            if file is not None:
                file.close()


def cut(points: np.ndarray, first: int, end: int, stride: int, width: int) -> Segments:
    """Rows cut where documents begin.

    Args:
        points: int64, in order: tokens from ``first`` to ``end`` at which a document begins.
        first, end: the first token of the first row, and of the row after the last.
        stride, width: from a row to the next, and tokens of a row. The tokens that a row shares with the next belong to
            its last segment.
    """
    begins = np.union1d(points, np.arange(first, end, stride))
    row = (begins - first) // stride
    start = begins - first - row * stride
    bounds = np.searchsorted(row, np.arange((end - first) // stride + 1)).astype(np.int32)
    length = np.diff(np.append(begins, end))
    length[bounds[1:] - 1] += width - stride
    kind = np.zeros(len(begins), dtype=np.uint8)
    return Segments(bounds, {"start": start.astype(np.int32), "length": length.astype(np.int32), "kind": kind})
