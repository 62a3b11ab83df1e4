"""Cerebras HDF5: the files that CrystalCoder was trained on.

The "sample" kind is one dataset ``data``, int32 (N, 3, L): ids, loss mask, labels, a chunk a row, gzip; attribute
``n_examples``. With five rows (variable sequence length) come attention span and position ids. The "corpus" kind is
``data``, int (T,): sequence i is tokens ``i * L`` to ``i * L + L`` and the one after. (Cerebras Model Zoo 1.9 to 2.10,
``hdf5_base_preprocessor.py``, ``h5_map_dataset/readers.py``.)

Our files of the "sample" kind also hold a group ``headrace`` with the segments, which other readers do not look at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile, put_ids
from headrace.formats.format import Part, ReadableFormat, Shape, blocks, files_below
from headrace.sequence.reader import SEGMENT, Segments
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING

if TYPE_CHECKING:
    import h5py

IDS, MASK, LABELS, SPAN, POSITION = range(5)

# A filter outside the library is code that HDF5 looks for in the file system and runs: deflate, shuffle, fletcher32,
# szip, nbit, scaleoffset (H5Zpublic.h) and h5py's own lzf are built in.
FILTERS = frozenset([1, 2, 3, 4, 5, 6, 32000])
# A chunk is read as a whole. The largest in use is a row of 3 x 128 k ids; a chunk of a whole file is refused.
MOST_CHUNK = 256 << 20


def library() -> Any:
    """The h5py package, told to load no code from elsewhere.

    Raises:
        UserError: it is not installed.
    """
    # What the library loads filters from is decided when it is first imported ("::" is: from nowhere, H5PLpublic.h).
    os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")
    try:
        import h5py
    except ImportError:
        raise UserError(
            "Reading and writing HDF5 needs h5py.", "hdf5", "Run `pip install 'headrace[formats]'`."
        ) from None
    return h5py


class HDF5(ReadableFormat):
    """Cerebras HDF5, kind "sample"."""

    name = "hdf5"
    about = "Cerebras HDF5, (N, 3, L) of ids, loss mask and labels, as CrystalCoder's"
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = 50_000  # files_per_record of CrystalCoder's preparation
    suffix = ".h5"

    def check(self, sequence: ArrowSequence) -> None:
        """Refuse without h5py; ids above int32 do not exist."""
        library()

    def write(self, ctx: TaskContext, sequence: ArrowSequence, part: Part) -> dict[str, Any]:
        """Write rows and their segments."""
        h5py = library()
        L = sequence.seq_len
        with ctx.file(part.file) as out, h5py.File(out.path, "w", libver=("earliest", "v110")) as file:
            file.attrs["n_examples"] = part.rows
            data = file.create_dataset("data", (part.rows, 3, L), "i4", chunks=(1, 3, L), compression="gzip")
            bounds, kept = [np.zeros(1, dtype=np.int64)], []
            for start, stop in blocks(sequence, part):
                tokens, mask = sequence.rows(start, stop), sequence.targets(start, stop)
                segments = sequence.segments_in(start, stop)
                block = np.empty((stop - start, 3, L), dtype=np.int32)
                block[:, IDS], block[:, LABELS] = tokens[:, :-1], tokens[:, 1:]
                block[:, MASK] = mask & ~segments.padding(L)
                data[start - part.start : stop - part.start] = block
                bounds.append(segments.bounds[1:].astype(np.int64) - segments.bounds[0] + bounds[-1][-1])
                kept.append(segments.records())
                ctx.progress(rows=stop - start, bytes=block.nbytes)
            group = file.create_group("headrace")
            group.create_dataset("bounds", data=np.concatenate(bounds), compression="gzip")
            group.create_dataset("segments", data=np.concatenate([*kept, np.empty(0, SEGMENT)]), compression="gzip")
            group.attrs["sources"] = sequence.sources
        return {}

    def find(self, path: Path) -> list[Path]:
        """Files named .h5 or .hdf5."""
        return files_below(path, ".h5", ".hdf5")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Rows and L; a file of the "corpus" kind needs to be told L."""
        opened, data = _open(file)
        with opened:
            return _shape(data, file, seq_len)

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file of either kind."""
        opened, data = _open(file)
        return (CorpusFile if data.ndim == 1 else SampleFile)(file, facts, opened, data)


def _shape(data: h5py.Dataset, path: Path, seq_len: int | None) -> Shape:
    if data.ndim == 3:
        return Shape(data.shape[0], data.shape[2], np.dtype(np.uint32))
    if seq_len is None:
        raise UserError(
            "The file is one line of tokens and does not say how long a sequence is.",
            str(path),
            "Say it: open_sequence(..., seq_len=2048) or --sequence-length 2048.",
        )
    return Shape(max(0, (data.shape[0] - 1) // seq_len), seq_len, np.dtype(np.uint32))


def _open(path: Path) -> tuple[h5py.File, h5py.Dataset]:
    h5py = library()
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise _unreadable(path, f"it is no HDF5 file or it is damaged ({_line(error)})") from None
    try:
        data = _data(file, path)
        n = file.attrs.get("n_examples")
        if n is not None and data.ndim == 3 and int(n) != data.shape[0]:
            raise _unreadable(path, f"it says n_examples {int(n):,} and has {data.shape[0]:,} rows")
        return file, data
    except BaseException as error:
        file.close()
        if isinstance(error, UserError | KeyboardInterrupt | MemoryError):
            raise
        raise _unreadable(path, _line(error)) from None


def _data(file: h5py.File, path: Path) -> h5py.Dataset:
    """The dataset ``data``, if it is of a kind that is known and lies in this file."""
    h5py = library()
    link = file.get("data", getlink=True) if "data" in file.keys() else None  # noqa: SIM118 - a link may lead nowhere
    if link is None:
        raise _unreadable(path, f"it has no dataset 'data', only {', '.join(map(repr, list(file)[:8])) or 'nothing'}")
    if not isinstance(link, h5py.HardLink):
        raise _unreadable(path, "'data' is a link to elsewhere")
    data = file["data"]
    if not isinstance(data, h5py.Dataset):
        raise _unreadable(path, "'data' is a group")
    layout = data.id.get_create_plist()
    if data.is_virtual or layout.get_external_count():
        raise _unreadable(path, "its data lie in other files")
    for i in range(layout.get_nfilters()):
        if layout.get_filter(i)[0] not in FILTERS:
            raise _unreadable(path, f"its data need filter {layout.get_filter(i)[0]}, which is not built in")
    if data.dtype.kind not in "iu":
        raise _unreadable(path, f"its data are {data.dtype}, not integers")
    if not (data.ndim == 1 or (data.ndim == 3 and data.shape[1] in (3, 5) and data.shape[2] > 0)):
        raise _unreadable(path, f"its shape is {data.shape}, where (N, 3, L), (N, 5, L) or (T,) is read")
    if data.chunks is not None:
        if int(np.prod(data.chunks)) * data.dtype.itemsize > MOST_CHUNK:
            raise _unreadable(path, f"its chunks of {data.chunks} expand to more than {MOST_CHUNK >> 20} MB each")
        promised = int(np.prod([-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]))
        if data.id.get_num_chunks() < promised:
            raise _unreadable(path, f"it holds {data.id.get_num_chunks():,} of the {promised:,} chunks it promises")
    return data


class SampleFile(RowFile):
    """A file of the "sample" kind, with three rows or five.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        file: the file, open.
        data: its dataset.
    """

    def __init__(self, path: Path, facts: Facts, file: h5py.File, data: h5py.Dataset) -> None:
        self.path, self.facts, self._file, self._data = path, facts, file, data
        # Only what a manifest vouches for is taken for ours.
        self._bounds = self._file["headrace/bounds"][:] if facts.fingerprint and "headrace" in self._file else None
        if self._data.ndim != 3 or self._data.shape[2] != facts.seq_len:
            raise _unreadable(path, f"its shape is {self._data.shape}, the first file's sequences have {facts.seq_len}")

    def __len__(self) -> int:
        return int(self._data.shape[0])

    def _read(self, start: int, stop: int, row: int | slice) -> np.ndarray:
        try:
            return self._data[start:stop, row]
        except (OSError, RuntimeError) as error:
            raise _unreadable(self.path, f"rows {start} to {stop} are damaged ({_line(error)})") from None

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens: the inputs and the last label. Labels that carry loss must be the inputs one further on."""
        block = self._read(start, stop, slice(IDS, LABELS + 1))
        where = f"{self.path}:{start}"
        put_ids(block[:, IDS], out[:, :-1], self.facts.vocab_size, where)
        put_ids(block[:, LABELS, -1:], out[:, -1:], self.facts.vocab_size, where)
        other = (block[:, LABELS, :-1] != block[:, IDS, 1:]) & (block[:, MASK, :-1] != 0)
        if other.any():
            row, at = np.argwhere(other)[0]
            raise UserError(
                f"Row {start + row} has label {block[row, LABELS, at]} at position {at}, its next token is "
                f"{block[row, IDS, at + 1]}: the labels are not the tokens one further on.",
                str(self.path),
                "headrace reads sequences for next-token prediction only.",
            )

    def targets(self, start: int, stop: int) -> np.ndarray:
        """The loss mask."""
        return self._read(start, stop, MASK) != 0

    def segments(self, start: int, stop: int) -> Segments | None:
        """From our own group, or from the position ids of a file with five rows."""
        if self._bounds is not None:
            bounds = self._bounds[start : stop + 1]
            rows = self._file["headrace/segments"][bounds[0] : bounds[-1]]
            return Segments(bounds - bounds[0], {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names})
        if self._data.shape[1] < 5:
            return None
        block = self._read(start, stop, slice(0, 5))
        return from_positions(block[:, POSITION], (block[:, SPAN] == 0) & (block[:, MASK] == 0))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def from_positions(position: np.ndarray, idle: np.ndarray) -> Segments:
    """Segments from position ids: one begins wherever the position is not one more than that before.

    Args:
        position: int[n, L].
        idle: bool[n, L]: positions that attend to nothing and carry no loss; those at position 0 at a row's end are
            padding.
    """
    n, L = position.shape
    begins = np.ones((n, L), dtype=bool)
    begins[:, 1:] = position[:, 1:] != position[:, :-1] + 1
    unused = idle & (position == 0)
    padding = np.logical_and.accumulate(unused[:, ::-1], axis=1)[:, ::-1]
    begins[:, 1:][padding[:, 1:] & padding[:, :-1]] = False
    row, start = np.nonzero(begins)
    bounds = np.searchsorted(row, np.arange(n + 1))
    end = np.append(start[1:], 0)
    end[bounds[1:] - 1] = L + 1  # the last segment has the row's last target too
    kind = np.where(padding[row, start], PADDING, 0).astype(np.uint8)
    return Segments(bounds, {"start": start.astype(np.int32), "length": (end - start).astype(np.int32), "kind": kind})


class CorpusFile(RowFile):
    """A file of the "corpus" kind: one line of tokens.

    Args:
        path: the file.
        facts: of the sequence that it belongs to.
        file: the file, open.
        data: its dataset.
    """

    def __init__(self, path: Path, facts: Facts, file: h5py.File, data: h5py.Dataset) -> None:
        self.path, self.facts, self._file, self._data = path, facts, file, data

    def __len__(self) -> int:
        return _shape(self._data, self.path, self.facts.seq_len).rows

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy windows that overlap by a token."""
        L = self.facts.seq_len
        if start == stop:
            return
        try:
            line = self._data[start * L : stop * L + 1]
        except (OSError, RuntimeError) as error:
            raise _unreadable(self.path, f"rows {start} to {stop} are damaged ({_line(error)})") from None
        windows = np.lib.stride_tricks.sliding_window_view(line, L + 1)[::L]
        put_ids(windows, out, self.facts.vocab_size, f"{self.path}:{start}")

    def targets(self, start: int, stop: int) -> np.ndarray:
        """Loss everywhere."""
        return np.ones((stop - start, self.facts.seq_len), dtype=bool)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _unreadable(path: Path, why: str) -> UserError:
    return UserError(f"This HDF5 file is not read: {why}.", str(path), "Export or download it again.")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
