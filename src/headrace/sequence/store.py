"""Read headrace's own sequences: any row at once, from memory-mapped shards that are opened on demand."""

from __future__ import annotations

import mmap
import os
from collections import OrderedDict
from collections.abc import Container, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash

from headrace.errors import UserError
from headrace.flow.artifact import Artifact
from headrace.flow.mirror import working_folder
from headrace.sequence.reader import SEGMENT, Segments, SequenceReader
from headrace.sequence.windows import unpack_targets

# Open shards hold two file descriptors each; processes are commonly limited to 1024.
OPEN_SHARDS = 128


def schema(seq_len: int, dtype: np.dtype, known: Container[str] = SEGMENT.names or ()) -> pa.Schema:
    """The Arrow schema of a sequence's shards; with fewer fields of segments, of rows that do not know all."""
    names = [name for name in SEGMENT.names or () if name in known]
    fields = [pa.field(name, pa.from_numpy_dtype(SEGMENT[name]), nullable=False) for name in names]
    item = pa.field("item", pa.from_numpy_dtype(dtype), nullable=False)
    return pa.schema(
        [
            pa.field("tokens", pa.list_(item, seq_len + 1), nullable=False),
            pa.field("loss", pa.list_(pa.field("item", pa.bool_(), nullable=False), seq_len + 1)),
            pa.field("segments", pa.list_(pa.field("item", pa.struct(fields), nullable=False)), nullable=False),
        ]
    )


class Shard(NamedTuple):
    """A shard's columns as NumPy views of the mapped file.

    Attributes:
        tokens: [n, L + 1] of the sequence's dtype.
        masked: bool[n], whether a row has a loss mask.
        loss_bits: uint8, the bitmap of the loss column, L + 1 bits per row, starting at bit ``loss_first``.
        loss_first: see above.
        bounds: int32[n + 1], the segments of each row.
        segments: the columns of :data:`SEGMENT` by name.
        path: the file's name.
        file: the file, open for :meth:`copy`.
        mapped: its bytes.
        first: the byte of the file where the tokens start.
        batch: the same as Arrow has it.
    """

    tokens: np.ndarray
    masked: np.ndarray
    loss_bits: np.ndarray
    loss_first: int
    bounds: np.ndarray
    segments: dict[str, np.ndarray]
    path: Path
    file: pa.OSFile
    mapped: mmap.mmap
    first: int
    batch: pa.RecordBatch

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy the tokens of rows ``start`` to ``stop`` to ``out``: [stop - start, L + 1], contiguous, of any dtype.

        Raises:
            UserError: the file has been truncated since it was opened.
        """
        if out.dtype != self.tokens.dtype:
            out[:] = self.tokens[start:stop]
            return
        # Rows are mostly read once, and reading costs less than mapping their pages.
        at = self.first + start * self.tokens.strides[0]
        done = os.preadv(self.file.fileno(), [out.data], at)
        while done < out.nbytes:
            count = os.preadv(self.file.fileno(), [out.reshape(-1).view(np.uint8)[done:].data], at + done)
            if count == 0:
                raise UserError("A shard of the sequence has been truncated.", str(self.path), "Rebuild the sequence.")
            done += count


def open_shard(path: Path, seq_len: int) -> Shard:
    """Map a shard's file.

    Raises:
        UserError: the file is missing or not a sequence shard.
    """
    try:
        file = pa.OSFile(str(path))
        # Arrow's own memory map reads the whole batch ahead, which takes 50 ms even for a few rows.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        buffer = pa.py_buffer(mapped)
        batch = pa.ipc.open_file(pa.BufferReader(buffer)).get_batch(0)
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise UserError(
            f"A shard of the sequence cannot be read: {error}", str(path), "Rebuild the sequence, or copy it again."
        ) from None
    tokens, loss, segments = (batch.column(name) for name in ("tokens", "loss", "segments"))
    n = batch.num_rows
    bits = loss.values.buffers()[1]
    values = segments.values
    flat = tokens.values.to_numpy()
    return Shard(
        flat.reshape(n, seq_len + 1),
        np.zeros(n, dtype=bool) if loss.null_count == n else loss.is_valid().to_numpy(zero_copy_only=False),
        np.frombuffer(bits, dtype=np.uint8) if bits is not None else np.zeros(0, dtype=np.uint8),
        loss.values.offset,
        segments.offsets.to_numpy(),
        {name: values.field(name).to_numpy() for name in SEGMENT.names or ()},
        path,
        file,
        mapped,
        flat.ctypes.data - buffer.address,
        batch,
    )


class ArrowSequence(SequenceReader):
    """A stage's rows as headrace builds them. Opening reads only the manifest.

    For a checked artifact (``Artifact.open(path, verify=True)``), each shard is read in full and compared with its
    digest when it is first mapped.

    Attributes:
        artifact: the sequence's folder and manifest.
    """

    def __init__(self, artifact: Artifact) -> None:
        if artifact.manifest.kind != "sequence":
            raise UserError(
                f"This folder contains {artifact.manifest.kind}, not a sequence.",
                str(artifact.path),
                "Choose one of the folders RUN/artifacts/sequence-*.",
            )
        extra = artifact.manifest.extra
        self.artifact, self.path = artifact, artifact.path
        self.seq_len = extra["seq_len"]
        self.dtype = np.dtype(extra["dtype"])
        self.sources = extra["sources"]
        self.vocab_size = extra.get("vocab_size")
        self._shards: OrderedDict[int, Shard] = OrderedDict()

    def __len__(self) -> int:
        return self.artifact.rows

    @property
    def manifest(self) -> dict[str, Any]:
        """Manifest fields specific to sequences: ledger, special ids, tokenizer fingerprint, seeds."""
        return self.artifact.manifest.extra

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What the sequence is: the ``digest`` of all its bytes, and the fields that people compare when it differs."""
        manifest = self.artifact.manifest
        digests = "".join(shard["digest"] for shard in manifest.shards)
        extra = manifest.extra
        return {
            "digest": xxhash.xxh3_128_hexdigest(f"{manifest.kind} {manifest.version} {digests}".encode()),
            "stage": manifest.stage,
            "rows": len(self),
            "seq_len": self.seq_len,
            "dtype": str(self.dtype),
            "tokenizer": extra["tokenizer"],
            "seeds": extra["seeds"],
            "version": manifest.version,
            "params": manifest.params,
            "ledger": extra["ledger"],
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the shards itself rather than receiving their bytes.
        return open_sequence, (self.path, self.artifact.check is not None)

    def verified(self) -> ArrowSequence:
        """The same rows, with each shard checked against its digest when it is first mapped."""
        return self if self.artifact.check is not None else open_sequence(self.path, verify=True)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The rows of each shard."""
        return pairwise(self.artifact.row_offsets.tolist())

    def shard(self, index: int) -> Shard:
        """A shard's columns, mapping it if needed."""
        shard = self._shards.pop(index, None)
        if shard is None:
            shard = open_shard(self.artifact.shard_path(index), self.seq_len)
            while len(self._shards) >= OPEN_SHARDS:
                self._shards.popitem(last=False)
        self._shards[index] = shard
        return shard

    def let_go(self) -> None:
        """Count no page of the mapped files as memory of this process until it is read again."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for shard in list(self._shards.values()):
                shard.mapped.madvise(mmap.MADV_DONTNEED)

    def all_shards(self) -> Iterator[Shard]:
        """The columns of all shards in turn. None stays mapped, so that the memory of whoever reads through all of them
        is that of one."""
        for index in range(len(self.artifact.shards)):
            yield open_shard(self.artifact.shard_path(index), self.seq_len)

    def spans(self, start: int, stop: int) -> list[tuple[Shard, int, int]]:
        """The shards that hold rows ``start`` to ``stop``, with the range of rows in each.

        Raises:
            IndexError: there are no such rows.
        """
        self.within(start, stop)
        offsets = self.artifact.row_offsets
        spans = []
        while start < stop:
            index = int(offsets.searchsorted(start, side="right")) - 1
            base, end = int(offsets[index]), min(int(offsets[index + 1]), stop)
            spans.append((self.shard(index), start - base, end - base))
            start = end
        return spans

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Tokens of rows ``start`` to ``stop``: [stop - start, L + 1], a view of the file if one shard holds them."""
        spans = self.spans(start, stop)
        if len(spans) == 1:
            [(shard, a, b)] = spans
            return shard.tokens[a:b]
        return super().rows(start, stop)

    def copy(self, start: int, stop: int, out: np.ndarray) -> None:
        """Copy tokens; see :meth:`headrace.sequence.reader.SequenceReader.copy`."""
        done = 0
        for shard, a, b in self.spans(start, stop):
            shard.copy(a, b, out[done : done + b - a])
            done += b - a

    def loss(self, start: int, stop: int) -> np.ndarray:
        """Whether each token of rows ``start`` to ``stop`` carries loss as a target: bool[stop - start, L + 1].

        A row's first token is never a target within the row.
        """
        out = np.ones((self.within(start, stop), self.seq_len + 1), dtype=bool)
        at = 0
        for shard, a, b in self.spans(start, stop):
            width = self.seq_len + 1
            for row in np.flatnonzero(shard.masked[a:b]):
                first = shard.loss_first + (a + int(row)) * width
                bits = np.unpackbits(shard.loss_bits[first // 8 : (first + width + 7) // 8], bitorder="little")
                out[at + row] = bits[first % 8 : first % 8 + width]
            at += b - a
        return out

    def targets(self, start: int, stop: int) -> np.ndarray:
        """bool[stop - start, L]: whether each target carries loss; entry i is token i + 1."""
        out = np.empty((self.within(start, stop), self.seq_len), dtype=bool)
        done = 0
        for shard, a, b in self.spans(start, stop):
            first = shard.loss_first + a * (self.seq_len + 1)
            unpack_targets(shard.loss_bits, first, shard.masked[a:b], out[done : done + b - a])
            done += b - a
        return out

    def to_arrow(self, start: int = 0, stop: int | None = None) -> pa.Table:
        """Rows with the columns of :func:`schema`, a batch a shard: views of the mapped files, nothing is copied."""
        spans = self.spans(start, len(self) if stop is None else stop)
        pieces = [shard.batch.slice(a, b - a) for shard, a, b in spans]
        return pa.Table.from_batches(pieces, pieces[0].schema if pieces else schema(self.seq_len, self.dtype))

    def segments(self, row: int) -> np.ndarray:
        """The segments of a row, in order: a structured array of :data:`SEGMENT`."""
        return self.segments_in(row, row + 1).of(0)

    def segments_in(self, start: int, stop: int) -> Segments:
        """The segments of rows ``start`` to ``stop``: views of the file if one shard holds them."""
        spans = self.spans(start, stop)
        if len(spans) == 1:
            [(shard, a, b)] = spans
            return Segments(shard.bounds[a : b + 1], shard.segments)
        counts = [np.diff(shard.bounds[a : b + 1]) for shard, a, b in spans]
        bounds = np.concatenate([[0], *counts]).cumsum()
        parts = [{n: c[shard.bounds[a] : shard.bounds[b]] for n, c in shard.segments.items()} for shard, a, b in spans]
        empty = {name: np.empty(0, dtype=SEGMENT[name]) for name in SEGMENT.names or ()}
        return Segments(bounds, {n: np.concatenate([e, *(part[n] for part in parts)]) for n, e in empty.items()})


def open_sequence(path: Path | str, verify: bool = False) -> ArrowSequence:
    """Open a sequence's folder.

    Args:
        path: the folder, or its URL.
        verify: compare each shard with its digest when it is first mapped.

    Raises:
        DamagedArtifact: the manifest, or later a shard, has changed since it was written.
        UserError: the folder contains no finished sequence.
    """
    return ArrowSequence(Artifact.open(working_folder(path), verify))
