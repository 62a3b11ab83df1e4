"""Cerebras HDF5: the files that CrystalCoder was trained on.

The "sample" kind is one dataset ``data``, int32 (N, 3, L): ids, loss mask, labels, a chunk a row, gzip; attribute
``n_examples``. With five rows (variable sequence length) come attention span and position ids, which begin anew with
each document. The "corpus" kind is ``data``, int (T,): sequence i is tokens ``i * L`` to ``i * L + L`` and the one
after. (Cerebras Model Zoo 1.9 to 2.10, ``hdf5_base_preprocessor.py``, ``h5_map_dataset/readers.py``.)

Our files also hold a group ``headrace`` with the segments, a dataset a column, which other readers do not look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from headrace.errors import UserError
from headrace.flow.task import TaskContext
from headrace.formats.files import Facts, RowFile
from headrace.formats.format import Part, ReadableFormat, Shape, blocks, files_below
from headrace.formats.hdf5_layout import Layout, describe, needed, refuse
from headrace.formats.hdf5_rows import CorpusFile, SampleFile
from headrace.sequence.batch import read
from headrace.sequence.reader import SEGMENT, SequenceReader

BOUNDS = "headrace/bounds"
COLUMNS = tuple(f"headrace/{name}" for name in SEGMENT.names or ())
# Segments are written a block of rows at a time; the datasets grow by chunks of so many.
_SEGMENT_CHUNK = 1 << 14


class HDF5(ReadableFormat):
    """Cerebras HDF5, kind "sample"."""

    name = "hdf5"
    about = "Cerebras HDF5, (N, 3, L) of ids, loss mask and labels, as CrystalCoder's"
    VERSION = 2
    keeps = frozenset(["loss", "segments", "provenance"])
    rows_per_file = 50_000  # files_per_record of CrystalCoder's preparation
    suffix = ".h5"
    foldered = True
    lines: ClassVar[int] = 3

    def check(self, sequence: SequenceReader) -> None:
        """Refuse without h5py; ids above int32 do not exist."""
        needed()

    def write(self, ctx: TaskContext, sequence: SequenceReader, part: Part) -> dict[str, Any]:
        """Write rows and their segments."""
        import h5py

        L = sequence.seq_len
        with ctx.file(part.file) as out, h5py.File(out.path, "w", libver=("earliest", "v110")) as file:
            file.attrs["n_examples"] = part.rows
            shape, chunk = (part.rows, self.lines, L), (1, self.lines, L)
            data = file.create_dataset("data", shape, "i4", chunks=chunk, compression="gzip")
            for start, stop in blocks(sequence, part):
                batch = read(sequence, start, stop, np.dtype(np.int32), restart=self.lines == 5)
                block = np.empty((stop - start, self.lines, L), dtype=np.int32)
                block[:, 0], block[:, 1], block[:, 2] = batch.tokens[:, :-1], batch.loss, batch.tokens[:, 1:]
                if self.lines == 5:
                    block[:, 3], block[:, 4] = _spans(batch.segment_ids), batch.positions * (batch.segment_ids > 0)
                data[start - part.start : stop - part.start] = block
                _add_segments(file, sequence, start, stop)
                ctx.progress(rows=stop - start, bytes=block.nbytes)
        return {}

    def find(self, path: Path) -> list[Path]:
        """Files named .h5 or .hdf5."""
        return files_below(path, ".h5", ".hdf5")

    def shape(self, file: Path, seq_len: int | None) -> Shape:
        """Rows and L; a file of the "corpus" kind needs to be told L."""
        return self.shapes([file], seq_len)[0]

    def shapes(self, files: Sequence[Path], seq_len: int | None) -> list[Shape]:
        """The same of several files, looked at by one process."""
        described = describe(files, ["data"], index=False)
        return [_shape(one.arrays["data"], file, seq_len) for file, one in zip(files, described, strict=True)]

    def open_file(self, file: Path, facts: Facts) -> RowFile:
        """Open a file of any kind."""
        # Only what a manifest vouches for is taken for our group.
        ours = (BOUNDS, *COLUMNS) if facts.manifest else ()
        [described] = describe([file], ["data", *ours], index=True)
        data = described.arrays["data"]
        shape = _shape(data, file, facts.seq_len)
        if shape.seq_len != facts.seq_len:
            refuse(file, f"its shape is {data.shape}, where sequences have {facts.seq_len} tokens")
        return (CorpusFile if len(data.shape) == 1 else SampleFile)(file, facts, described.arrays, shape.rows)


class VariableHDF5(HDF5):
    """Cerebras HDF5 with five lines a row, so that their readers know the documents too."""

    name = "hdf5-vsl"
    about = "Cerebras HDF5 of variable sequence length, (N, 5, L), with attention span and position ids"
    lines = 5

    def check(self, sequence: SequenceReader) -> None:
        """Refuse rows whose documents nobody knows."""
        super().check(sequence)
        if sequence.segments_in(0, min(1, len(sequence))) is None:
            raise UserError(
                "hdf5-vsl says where documents begin, and these files do not tell.",
                str(sequence.path),
                "Export them to hdf5.",
            )


def _spans(segment_ids: np.ndarray) -> np.ndarray:
    """int32[n, L]: how many of the positions after each one may attend to it; 0 on padding."""
    n, L = segment_ids.shape
    ends = np.ones((n, L), dtype=bool)
    ends[:, :-1] = segment_ids[:, 1:] != segment_ids[:, :-1]
    at = np.arange(L, dtype=np.int32)
    end = np.minimum.accumulate(np.where(ends, at, L)[:, ::-1], axis=1)[:, ::-1]
    return (end - at) * (segment_ids > 0)


def _add_segments(file: Any, sequence: SequenceReader, start: int, stop: int) -> None:
    """Append what is known of the segments of rows to our group."""
    segments = sequence.segments_in(start, stop)
    if segments is None:
        return
    first, last = int(segments.bounds[0]), int(segments.bounds[-1])
    if BOUNDS not in file:
        _append(file, BOUNDS, np.zeros(1, dtype=np.int64))
    _append(file, BOUNDS, segments.bounds[1:].astype(np.int64) - first + file[BOUNDS][-1])
    for name, column in segments.columns.items():
        _append(file, f"headrace/{name}", column[first:last].astype(SEGMENT[name]))


def _append(file: Any, name: str, values: np.ndarray) -> None:
    if name not in file:
        file.create_dataset(
            name, (0,), values.dtype, maxshape=(None,), chunks=(_SEGMENT_CHUNK,), compression="gzip", shuffle=True
        )
    data = file[name]
    done = len(data)
    data.resize(done + len(values), axis=0)
    data[done:] = values


def _shape(data: Layout, path: Path, seq_len: int | None) -> Shape:
    dtype = np.dtype(np.uint16 if data.dtype.itemsize <= 2 else np.uint32)
    if len(data.shape) == 3 and data.shape[1] in (3, 5) and data.shape[2] > 0:
        return Shape(data.shape[0], data.shape[2], dtype)
    if len(data.shape) != 1:
        refuse(path, f"its shape is {data.shape}, where (N, 3, L), (N, 5, L) or (T,) is read")
    if seq_len is None:
        raise UserError(
            "The file is one line of tokens and does not say how long a sequence is.",
            str(path),
            "Say it: open_sequence(..., seq_len=2048) or --sequence-length 2048.",
        )
    return Shape(max(0, (data.shape[0] - 1) // seq_len), seq_len, dtype)
