"""A sequence that lies in a list of files of one format: what every format that is read has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from headrace.errors import UserError
from headrace.flow.artifact import Entry, flaw
from headrace.flow.storage import cannot_read, digest_file
from headrace.sequence.reader import SEGMENT, Segments, SequenceReader
from headrace.sequence.windows import KINDS, PADDING

# Open files hold a descriptor or two each; processes are commonly allowed 1024.
OPEN_FILES = 128


def digest_files(paths: Sequence[Path]) -> list[str]:
    """The digests of files: :func:`headrace.flow.storage.digest_file`."""
    return [digest_file(path) for path in paths]


class RowFile(ABC):
    """An opened file of rows. Rows are counted within the file."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of rows."""

    @abstractmethod
    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens to ``out``: [stop - start, L + 1]; see :meth:`headrace.sequence.reader.SequenceReader.copy`."""

    @abstractmethod
    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss."""

    def segments(self, start: int, stop: int) -> Segments | None:
        """The segments of rows; None if the file does not tell."""
        return None

    def close(self) -> None:
        """Let go of the file."""


@dataclass(frozen=True)
class Facts:
    """What is known of a sequence from other files than those that hold its rows.

    Attributes:
        seq_len: L.
        dtype: of tokens.
        sources: see :class:`headrace.sequence.reader.SequenceReader`; and so the next two.
        vocab_size: see there.
        fingerprint: see there.
        entries: by the name of a file below the folder, its size and digest; empty if nobody recorded them.
        manifest: see :class:`headrace.sequence.reader.SequenceReader`.
        identity: of what the files hold; None if nobody has read them for it.
    """

    seq_len: int
    dtype: np.dtype
    sources: list[str] = field(default_factory=list)
    vocab_size: int | None = None
    fingerprint: dict[str, Any] | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    identity: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of segments that are known: without sources, not which documents they are."""
        return (SEGMENT.names or ()) if self.sources else ("start", "length", "kind")


@dataclass(frozen=True)
class Listed:
    """A file of a sequence.

    Attributes:
        path: the file.
        rows: how many it has.
        beside: other files that its rows are read from, if they are there.
    """

    path: Path
    rows: int
    beside: tuple[Path, ...] = ()


class FileSequence(SequenceReader):
    """A sequence in files of another format than headrace's own.

    Args:
        path: the file or folder that was opened.
        files: in order.
        open: opens one of them.
        facts: what else is known.
        verify: whether each file is compared with its digest before it is first read.
        again: how another process opens the same: a function of this module's users and its arguments.
    """

    def __init__(
        self,
        path: Path,
        files: Sequence[Listed],
        open: Callable[[Path, Facts], RowFile],
        facts: Facts,
        again: tuple[Callable[..., Any], tuple[Any, ...]],
        verify: bool = False,
    ) -> None:
        self.path, self.files, self.facts = path, list(files), facts
        self.seq_len, self.dtype = facts.seq_len, facts.dtype
        self.sources, self.vocab_size = facts.sources, facts.vocab_size
        self._open, self._again, self._verify = open, again, verify
        self._offsets = np.cumsum([0, *(file.rows for file in self.files)], dtype=np.int64)
        self._opened: OrderedDict[int, RowFile] = OrderedDict()
        self._seen: set[int] = set()

    def __len__(self) -> int:
        return int(self._offsets[-1])

    @property
    def fingerprint(self) -> dict[str, Any] | None:
        """What the sequence is, if a manifest lies beside the files."""
        return self.facts.fingerprint

    @property
    def manifest(self) -> dict[str, Any]:
        """What the manifest beside the files says."""
        return self.facts.manifest

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens the files for itself.
        function, arguments = self._again
        return _reopened, (function, arguments, self.facts, self._verify)

    def verified(self) -> FileSequence:
        """The same rows, each file compared with its digest before it is first read."""
        if not self.facts.entries:
            super().verified()
        return self._like(self.facts, verify=True)

    def knowing(self, facts: Facts) -> FileSequence:
        """The same rows, with other facts."""
        return self._like(facts, self._verify)

    def _like(self, facts: Facts, verify: bool) -> FileSequence:
        return FileSequence(self.path, self.files, self._open, facts, self._again, verify)

    def digested(self, digest: Callable[[Sequence[Path]], list[str]] = digest_files) -> FileSequence:
        """The same rows, with the digest of each file, which is read for it."""
        named = self._named()
        found = zip(named.items(), digest(list(named.values())), strict=True)
        entries = {name: {"name": name, "bytes": path.stat().st_size, "digest": d} for (name, path), d in found}
        return self.with_digests(entries)

    def _name(self, path: Path) -> str:
        """A file's name below the folder that was opened, or below that of the file or prefix that was."""
        base = self.path if self.path in path.parents else self.path.parent
        return path.relative_to(base).as_posix()

    def _named(self) -> dict[str, Path]:
        """All files, by their names below the folder."""
        paths = [path for file in self.files for path in (file.path, *file.beside) if path.is_file()]
        return {self._name(path): path for path in paths}

    def with_digests(self, entries: dict[str, Entry]) -> FileSequence:
        """The same rows, with the digests that files had before. They make its fingerprint: the names of the files do
        not matter, their order does.

        Raises:
            UserError: there are other files now.
        """
        if list(entries) != list(self._named()):
            raise UserError("There are more or fewer files than before.", str(self.path), "Begin again.")
        told = " ".join(entry["digest"] for entry in entries.values())
        digest = xxhash.xxh3_128_hexdigest(f"{self.seq_len} {told}".encode())
        about = {"rows": len(self), "seq_len": self.seq_len, "dtype": str(self.dtype)}
        fingerprint = {"digest": digest, **about}
        return self.knowing(replace(self.facts, entries=entries, fingerprint=fingerprint, identity=digest))

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The rows of each file."""
        return pairwise(self._offsets.tolist())

    def _file(self, index: int) -> RowFile:
        opened = self._opened.pop(index, None)
        if opened is None:
            listed = self.files[index]
            if self._verify and index not in self._seen:
                self._check(listed)
                self._seen.add(index)
            _require_there(listed.path)
            opened = self._open(listed.path, self.facts)
            if len(opened) != listed.rows:
                raise UserError(
                    f"The file has {len(opened):,} rows, {listed.rows:,} were counted when it was opened.",
                    str(listed.path),
                    "Do not change the files while they are read.",
                )
            while len(self._opened) >= OPEN_FILES:
                self._opened.popitem(last=False)[1].close()
        self._opened[index] = opened
        return opened

    def _check(self, listed: Listed) -> None:
        for path in (listed.path, *listed.beside):
            entry = self.facts.entries.get(self._name(path))
            wrong = None if entry is None else flaw(path, entry)
            if wrong is not None:
                raise UserError(
                    f"A file of the sequence is damaged: {path.name} {wrong}.", str(path), "Copy or export it again."
                )

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int, slice]]:
        """The files that hold rows: index, first row and last in it, and where they go among those asked for."""
        self.within(start, stop)
        done = start
        while done < stop:
            index = int(self._offsets.searchsorted(done, side="right")) - 1
            base, end = int(self._offsets[index]), min(int(self._offsets[index + 1]), stop)
            yield index, done - base, end - base, slice(done - start, end - start)
            done = end

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens; see :meth:`headrace.sequence.reader.SequenceReader.copy`.

        Raises:
            UserError: an id is negative, or the vocabulary or ``out`` has no such id.
        """
        for index, a, b, part in self._spans(start, stop):
            self._file(index).copy(a, b, out[part])

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss."""
        out = np.empty((self.within(start, stop), self.seq_len), dtype=bool)
        for index, a, b, part in self._spans(start, stop):
            out[part] = self._file(index).targets(a, b)
        return out

    def segments_in(self, start: int, stop: int) -> Segments | None:
        """The segments of rows; None if the files do not tell."""
        parts = []
        for index, a, b, _ in self._spans(start, stop):
            segments = self._file(index).segments(a, b)
            if segments is None:
                return None
            parts.append(segments)
        found = joined(parts)
        wrong = found and flawed(found, self.seq_len, len(self.sources))
        if wrong:
            raise UserError(
                f"The segments of rows {start} to {stop} are damaged: {wrong}.", str(self.path), "Get the file again."
            )
        return found


def _require_there(path: Path) -> None:
    """See that a file is there and may be read, whatever its format says of files that are not.

    Raises:
        UserError: it is not.
    """
    try:
        open(path, "rb").close()
    except OSError as error:
        raise cannot_read("The file", path, error) from None


def _reopened(
    function: Callable[..., FileSequence], arguments: tuple[Any, ...], facts: Facts, verify: bool
) -> FileSequence:
    sequence = function(*arguments).knowing(facts)
    return sequence.verified() if verify else sequence


def joined(parts: Sequence[Segments]) -> Segments:
    """The segments of rows that follow one another, with the columns that all parts have."""
    if len(parts) == 1:
        return parts[0]
    counts = [np.zeros(1, dtype=np.int32), *(np.diff(part.bounds) for part in parts)]
    # In the order of SEGMENT: a format may write them in this order.
    known = set.intersection(*(set(part.columns) for part in parts)) if parts else {"start", "length", "kind"}
    names = [name for name in SEGMENT.names or () if name in known]
    cut = [{n: part.columns[n][part.bounds[0] : part.bounds[-1]] for n in names} for part in parts]
    columns = {n: np.concatenate([np.empty(0, SEGMENT[n]), *(part[n] for part in cut)]) for n in names}
    return Segments(np.concatenate(counts).cumsum(dtype=np.int32), columns)


def flawed(segments: Segments, seq_len: int, sources: int) -> str | None:
    """What is wrong with segments that somebody else wrote, in words; kernels trust their places.

    Args:
        segments: of whole columns.
        seq_len: L.
        sources: how many names there are.
    """
    low, high = int(segments.bounds[0]), int(segments.bounds[-1])
    start, length, kind = (segments.columns[name][low:high].astype(np.int64) for name in ("start", "length", "kind"))
    if (start < 0).any() or (length < 0).any() or (start + length > seq_len + 1).any():
        return "one lies outside its row"
    known = np.isin(kind, list(KINDS))
    if not known.all():
        return f"one is of kind {kind[~known][0]}"
    if "source" in segments.columns and sources:
        source = segments.columns["source"][low:high]
        if (source[kind != PADDING] >= sources).any():
            return f"one is of source {int(source[kind != PADDING].max())} of {sources}"
    return None


def put_ids(values: np.ndarray, out: np.ndarray, vocab_size: int | None, where: str, first: int = 0) -> None:
    """Copy ids that somebody else wrote, checked, to ``out``: [n, k]; the rest as for :func:`check_ids`."""
    check_ids(values, out.dtype, vocab_size, where, first)
    out[:] = values


def check_ids(values: np.ndarray, dtype: np.dtype, vocab_size: int | None, where: str, first: int = 0) -> None:
    """Check ids that somebody else wrote.

    Args:
        values: [n, k] of any integer type.
        dtype: the type that they go to.
        vocab_size: one more than the largest id that may occur; None if nobody knows.
        where: the file.
        first: which row of it is the first of these.

    Raises:
        UserError: an id is negative, or the vocabulary or ``dtype`` has no such id.
    """
    limit = min(int(np.iinfo(dtype).max), (vocab_size or 1 << 62) - 1)
    signed = values.dtype.kind == "i"
    if not values.size or (not signed and np.iinfo(values.dtype).max <= limit):
        return
    low, high = int(values.min()) if signed else 0, int(values.max())
    if low < 0 or high > limit:
        row = int(np.argmax(((values < 0) | (values > limit)).any(axis=1)))
        bad = values[row][(values[row] < 0) | (values[row] > limit)][0]
        what = "is negative" if bad < 0 else f"is beyond the largest id, {limit:,}"
        raise UserError(
            f"Row {first + row} has token id {bad:,}, which {what}.",
            where,
            "Check that the file holds token ids of this tokenizer.",
        )
