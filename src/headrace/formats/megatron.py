"""Megatron's indexed data sets: ``stage2.bin``, token ids and nothing else, and ``stage2.idx``, where sequences lie.

The index: ``MMIDIDX\\0\\0``, version 1 (uint64), type of the ids (uint8), numbers of sequences and of document bounds
(uint64); then by sequence its length (int32) and its first byte (int64), and by document the sequence it begins with
(int64), closed by the number of sequences. (megatron-core 0.16, ``datasets/indexed_dataset.py``.)

A row is a sequence and a document: ``GPTDataset`` shuffles sequences and joins them, so that only sequences of L + 1
tokens come out as they went in.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from headrace.flow.task import Out, TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.flat import FlatFile, FlatFormat, Points, write_learned
from headrace.formats.format import BLOCK_TOKENS, Exported, Part, Shape, files_below
from headrace.formats.options import Options
from headrace.formats.placed import size_of, unreadable

MAGIC = b"MMIDIDX\x00\x00"
HEADER = np.dtype([("magic", "V9"), ("version", "<u8"), ("code", "u1"), ("sequences", "<u8"), ("documents", "<u8")])
CODES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # 6 and 7 are floats, which are no ids
HALVES = ((".bin", ".idx"), (".idx", ".bin"))
PIECE_TOKENS = 1 << 26  # what a task writes: 128 MB of uint16
COPIED = 64 << 20  # bytes between signs of life


class Megatron(FlatFormat):
    """Megatron's ``.bin`` and ``.idx``."""

    name = "megatron"
    about = "Megatron's .bin and .idx, a row a sequence"
    suffix = ".bin"
    unseen = frozenset(["loss", "segments", "provenance"])

    def loss_file(self, file: Path) -> Path:
        """headrace's own: Megatron has no such file."""
        return file.with_suffix(".loss")

    def segments_file(self, file: Path) -> Path:
        """headrace's own."""
        return file.with_suffix(".segments")

    def parts(self, sequences: Sequence[Exported], options: Options) -> list[Part]:
        """A file a sequence, unless the user says otherwise, each written in pieces."""
        out = []
        for index, one in enumerate(sequences):
            sequence = one.open()
            rows, size = len(sequence), options.rows_per_file
            piece = max(1, PIECE_TOKENS // (sequence.seq_len + 1))
            for number, start in enumerate(range(0, rows, size or max(1, rows))):
                stop = min(start + size, rows) if size else rows
                name = self.file(one.name, number) if size else f"{one.name}{self.suffix}"
                out += [Part(name, index, at, min(at + piece, stop)) for at in range(start, stop, piece)]
        return out

    # Writing.

    def place(self, ctx: TaskContext, file: Path) -> AbstractContextManager[Out]:
        """A piece, to be joined."""
        return ctx.intermediate(_piece(ctx.task, file))

    def close(
        self, ctx: TaskContext, sequences: Sequence[Exported], parts: Sequence[Part], results: Sequence[dict[str, Any]]
    ) -> None:
        """Join the pieces of each file and write its index."""
        pieces: dict[str, list[int]] = {}
        for task, part in enumerate(parts):
            pieces.setdefault(part.file, []).append(task)
        for name, tasks in pieces.items():
            file, sequence = Path(name), sequences[parts[tasks[0]].sequence].open()
            width, rows = sequence.seq_len + 1, sum(parts[task].rows for task in tasks)
            for whole in (file, self.segments_file(file)) if results[tasks[0]]["told"] else (file,):
                with ctx.file(whole.as_posix()) as out, open(out.path, "wb") as target:
                    for task in tasks:
                        append(ctx, target, ctx.scratch("write", _piece(task, whole)))
            if any(results[task]["masked"] for task in tasks):
                loss = self.loss_file(file)
                with ctx.file(loss.as_posix()) as out, open(out.path, "wb") as target:
                    for task in tasks:
                        if results[task]["masked"]:
                            append(ctx, target, ctx.scratch("write", _piece(task, loss)))
                        else:
                            write_learned(target, parts[task].rows, width)
            with ctx.file(file.with_suffix(".idx").as_posix()) as out, open(out.path, "wb") as target:
                write_index(target, partial(_equal, width, rows), rows, sequence.dtype)

    # Reading.

    def find(self, path: Path) -> list[Path]:
        """Files named .bin with an index beside them; a prefix of the two names will do, as for Megatron."""
        index = path.with_suffix(".idx") if path.suffix == ".bin" else path.with_name(f"{path.name}.idx")
        path = index if index.is_file() else path  # GPTDataset keeps a cache in a folder of the prefix's name
        found = (index.with_suffix(".bin") for index in files_below(path, ".idx"))
        return [file for file in found if file.is_file()]

    def lacking(self, path: Path) -> str | None:
        """What is missing beside a ``.bin`` or an ``.idx`` that lies alone: neither can be read without the other."""
        others = (file.with_suffix(other) for one, other in HALVES for file in files_below(path, one))
        missing = next((other for other in others if not other.is_file()), None)
        return None if missing is None else f"{missing.name} is missing beside the other of Megatron's two files."

    def beside(self, file: Path) -> tuple[Path, ...]:
        """The loss, the segments, the index."""
        return *super().beside(file), file.with_suffix(".idx")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Sequences of equal length are rows; others are joined and cut in rows that share a token with the next."""
        index = Index(file)
        if seq_len is None and (index.uniform or 0) > 1:
            seq_len = int(index.uniform or 0) - 1
        if seq_len is None:
            return super().shape(file, None)
        unsigned = {1: np.uint16, 2: np.uint16}.get(index.stored.itemsize, np.uint32)
        return Shape(index.rows(seq_len), seq_len, np.dtype(unsigned))

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file with its index."""
        index = Index(file)
        return MegatronFile(file, facts, index, *self.companions(file, facts))


def _piece(task: int, file: Path) -> str:
    return f"{task:05d}{file.suffix}"


def append(ctx: TaskContext, target: IO[bytes], piece: Path) -> None:
    """Copy a piece to the end of a file, without copying where the file system can share its blocks."""
    target.flush()
    with open(piece, "rb") as source:
        left = os.fstat(source.fileno()).st_size
        while left:
            try:
                count = os.copy_file_range(source.fileno(), target.fileno(), min(left, COPIED))
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                count = os.sendfile(target.fileno(), source.fileno(), None, min(left, COPIED))
            if not count:
                raise OSError(errno.EIO, "a piece of the export has been cut short", str(piece))
            left -= count
            ctx.progress(bytes=count)


def write_index(target: IO[bytes], lengths: Callable[[], Iterator[np.ndarray]], n: int, dtype: np.dtype) -> None:
    """Write the index of sequences that lie one after another, each a document.

    Args:
        target: the file.
        lengths: gives, as often as it is called, the tokens of each sequence, block by block.
        n: how many sequences there are.
        dtype: of the ids.
    """
    code = {2: 8, 4: 4}[dtype.itemsize]  # ids are below 2**31, so that int32 has the bytes of uint32
    target.write(np.array([(MAGIC, 1, code, n, n + 1)], dtype=HEADER).tobytes())
    for block in lengths():
        target.write(block.astype("<i4").tobytes())
    done = 0
    for block in lengths():
        ends = done + np.cumsum(block, dtype="<i8")
        target.write(((ends - block) * dtype.itemsize).astype("<i8").tobytes())
        done = int(ends[-1])
    for start in range(0, n + 1, BLOCK_TOKENS):
        target.write(np.arange(start, min(start + BLOCK_TOKENS, n + 1), dtype="<i8").tobytes())


def _equal(length: int, n: int) -> Iterator[np.ndarray]:
    for start in range(0, n, BLOCK_TOKENS):
        yield np.full(min(BLOCK_TOKENS, n - start), length)


class Index:
    """An index, whoever wrote it.

    Args:
        file: the file of tokens that it belongs to.

    Attributes:
        stored: the type of the ids.
        lengths: int32 by sequence.
        pointers: int64 by sequence, its first byte.
        tokens: in all sequences.
        uniform: the length of all sequences; None if they differ, or there are none.
        joined: whether they lie one after another from the file's first byte on.

    Raises:
        UserError: it is no such index, damaged, or promises what the file of tokens does not have.
    """

    def __init__(self, file: Path) -> None:
        path = file.with_suffix(".idx")
        size = size_of(path)
        with open(path, "rb") as f:
            head = f.read(HEADER.itemsize)
        if len(head) < HEADER.itemsize or not head.startswith(MAGIC):
            raise unreadable(path, "it does not begin as Megatron's indices do")
        said = np.frombuffer(head, dtype=HEADER)[0]
        n, documents, code = int(said["sequences"]), int(said["documents"]), int(said["code"])
        if said["version"] != 1:
            raise unreadable(path, f"its version is {said['version']}, where 1 is read")
        if code not in CODES:
            raise unreadable(path, f"its type of ids is {code}, where integers ({', '.join(map(str, CODES))}) are read")
        self.stored = np.dtype(CODES[code])
        expected = HEADER.itemsize + 12 * n + 8 * documents
        if size != expected:
            more = ", one more a sequence: multimodal data are not read" if size == expected + n and n else ""
            raise unreadable(path, f"it promises {expected:,} bytes and has {size:,}{more}")
        at = HEADER.itemsize
        self._path, self._bytes = path, size_of(file)
        self.lengths = _mapped(path, "<i4", n, at)
        self.pointers = _mapped(path, "<i8", n, at + 4 * n)
        self._check_documents(_mapped(path, "<i8", documents, at + 12 * n), n)
        self._check_sequences()

    def _check_documents(self, documents: np.ndarray, n: int) -> None:
        last = 0
        for start in range(0, len(documents), BLOCK_TOKENS):
            some = np.concatenate([[last], documents[start : start + BLOCK_TOKENS]])
            if (some[1:] < some[:-1]).any():
                raise unreadable(self._path, "its documents go back")
            last = int(some[-1])
        if last != n:
            raise unreadable(self._path, f"its documents end with sequence {last:,} of {n:,}")

    def _check_sequences(self) -> None:
        item = self.stored.itemsize
        self.tokens, self.joined, lengths = 0, True, set()
        for start in range(0, len(self.lengths), BLOCK_TOKENS):
            length = self.lengths[start : start + BLOCK_TOKENS].astype(np.int64)
            pointer = self.pointers[start : start + BLOCK_TOKENS]
            end = length * item
            wrong = (length < 0) | (pointer < 0) | (pointer > self._bytes - end)
            if wrong.any():
                at = start + int(wrong.argmax())
                raise unreadable(
                    self._path,
                    f"sequence {at:,} has {self.lengths[at]:,} tokens from byte {self.pointers[at]:,} on, the file of "
                    f"tokens has {self._bytes:,} bytes",
                )
            begins = self.tokens + np.cumsum(length) - length
            self.joined = self.joined and bool((begins * item == pointer).all())
            self.tokens += int(length.sum())
            lengths |= {int(length.min()), int(length.max())}
        self.uniform = next(iter(lengths)) if len(lengths) == 1 else None

    def rows(self, seq_len: int) -> int:
        """How many rows there are; see :meth:`Megatron.shape`."""
        return len(self.lengths) if self.uniform == seq_len + 1 else max(0, self.tokens - 1) // seq_len

    @cached_property
    def begins(self) -> np.ndarray:
        """int64 by sequence: its first token among those of all sequences."""
        lengths = self.lengths.astype(np.int64)
        return np.cumsum(lengths) - lengths


def _mapped(path: Path, dtype: str, count: int, offset: int) -> np.ndarray:
    return np.memmap(path, dtype, "r", offset, (count,)) if count else np.empty(0, dtype=dtype)


class MegatronFile(FlatFile):
    """A file of tokens with an index.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        index: its index.
        loss: see :class:`headrace.formats.flat.FlatFile`.
        records: see there.
    """

    def __init__(self, path: Path, facts: Facts, index: Index, loss: Path | None, records: Path | None) -> None:
        self._index = index
        whole = index.uniform == facts.seq_len + 1
        stride = facts.seq_len + 1 if whole else facts.seq_len
        points: Points | None = None if whole else self._begins
        super().__init__(path, facts, index.stored, index.tokens, stride, loss, records, points)

    def _begins(self, first: int, end: int) -> np.ndarray:
        """Where sequences begin: documents, to ``GPTDataset``."""
        if not self._index.joined:
            begins = self._index.begins
            return begins[begins.searchsorted(first) : begins.searchsorted(end)]
        item, pointers = self._index.stored.itemsize, self._index.pointers
        low, high = bisect_left(pointers, first * item), bisect_left(pointers, end * item)
        return np.array(pointers[low:high], dtype=np.int64) // item

    def read(self, first: int, out: np.ndarray) -> None:
        """Fill an array from a token on, from sequence to sequence if they lie apart."""
        if self._index.joined:
            return super().read(first, out)
        for at, pointer, length in self._spans(first, first + out.size):
            self._bytes.read(out[at - first : at - first + length], pointer)

    def _spans(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Where tokens lie: the first of a stretch, its first byte, and how many there are."""
        index = self._index
        number = bisect_right(index.begins, first) - 1
        while first < end:
            within = first - int(index.begins[number])
            length = min(int(index.lengths[number]) - within, end - first)
            if length > 0:
                yield first, int(index.pointers[number]) + within * index.stored.itemsize, length
                first += length
            number += 1
