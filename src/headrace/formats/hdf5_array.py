"""Read an array of an HDF5 file by its layout: bytes at places, expanded within bounds."""

from __future__ import annotations

import math
import os
import zlib
from itertools import product
from pathlib import Path
from typing import BinaryIO

import numpy as np

from headrace.formats.hdf5_layout import DEFLATE, FLETCHER32, Layout, refuse


class Damaged(Exception):  # noqa: N818 - a state of the file
    """A chunk is not what its layout says; the message says how."""


class StoredArray:
    """An array in a file.

    Args:
        path: the file, for errors.
        file: the same, open.
        name: of the array, for errors.
        layout: where it lies.
    """

    def __init__(self, path: Path, file: BinaryIO, name: str, layout: Layout) -> None:
        self.shape, self.dtype = layout.shape, layout.dtype
        self._path, self._file, self._name, self._layout = path, file, name, layout
        self._kept: tuple[int, np.ndarray] | None = None
        # Of a chunk in bytes, and of chunks along all axes but the first.
        self._size = math.prod(layout.chunks or ()) * self.dtype.itemsize
        self._grid = [-(-n // c) for n, c in zip(self.shape[1:], (layout.chunks or ())[1:], strict=False)]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Entries ``start`` to ``stop`` along the first axis: [stop - start, ...].

        Raises:
            UserError: the file is damaged there.
        """
        out = np.empty((stop - start, *self.shape[1:]), dtype=self.dtype)
        if not out.size:
            return out
        if self._layout.inline is not None:
            return np.frombuffer(self._layout.inline, dtype=self.dtype).reshape(self.shape)[start:stop]
        if self._layout.chunks is None:
            at = (self._layout.at or 0) + start * out.nbytes // len(out)
            self._pread(out.reshape(-1).view(np.uint8).data, at)
            return out
        deep = self._layout.chunks[0]
        for band in range(start // deep, -(-stop // deep)):
            first, last = max(start, band * deep), min(stop, (band + 1) * deep)
            out[first - start : last - start] = self._band(band)[first - band * deep : last - band * deep]
        return out

    def _pread(self, into: memoryview, at: int) -> None:
        done = 0
        while done < len(into):
            count = os.preadv(self._file.fileno(), [into[done:]], at + done)
            if not count:
                refuse(self._path, "it has become shorter since it was opened")
            done += count

    def _band(self, band: int) -> np.ndarray:
        """All chunks that begin at one place along the first axis, as an array."""
        if self._kept is not None and self._kept[0] == band:
            return self._kept[1]
        chunks, index = self._layout.chunks, self._layout.index
        assert chunks is not None
        assert index is not None
        count = math.prod(self._grid)
        if count == 1 and chunks[1:] == self.shape[1:]:
            made = self._chunk(index[band], chunks)
        else:
            made = np.empty((chunks[0], *self.shape[1:]), dtype=self.dtype)
            for i, place in enumerate(product(*map(range, self._grid))):
                box = tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunks[1:], strict=True))
                part = made[(slice(None), *box)]
                part[...] = self._chunk(index[band * count + i], chunks)[tuple(map(slice, part.shape))]
        if chunks[0] > 1:
            self._kept = band, made
        return made

    def _chunk(self, entry: np.void, shape: tuple[int, ...]) -> np.ndarray:
        data = bytearray(int(entry["bytes"]))
        self._pread(memoryview(data), int(entry["at"]))
        try:
            whole = expand(data, self._layout.filters, int(entry["skipped"]), self._size, self.dtype.itemsize)
        except Damaged as damaged:
            refuse(self._path, f"the chunk of {self._name!r} at byte {int(entry['at']):,} {damaged}")
        return np.frombuffer(whole, dtype=self.dtype).reshape(shape)


def expand(data: bytes | bytearray, filters: tuple[int, ...], skipped: int, size: int, item: int) -> bytes | bytearray:
    """Undo the filters of a chunk.

    Args:
        data: the bytes in the file.
        filters: what the chunk went through, in order.
        skipped: bit i: it did not go through filter i.
        size: the bytes that it must have in the end.
        item: bytes of a value.

    Raises:
        Damaged: it has not.
    """
    for i in reversed(range(len(filters))):
        if skipped >> i & 1:
            continue
        if filters[i] == DEFLATE:
            data = _inflated(data, size + 4)  # and a checksum
        elif filters[i] == FLETCHER32:
            data = _checked(data)
        elif len(data) == size:
            data = np.frombuffer(data, dtype=np.uint8).reshape(item, -1).T.tobytes()
    if len(data) != size:
        raise Damaged(f"has {len(data):,} bytes instead of {size:,}")
    return data


def _inflated(data: bytes | bytearray, most: int) -> bytes:
    inflate = zlib.decompressobj()
    try:
        out = inflate.decompress(data, most + 1)
    except zlib.error as error:
        raise Damaged(f"cannot be expanded ({error})") from None
    if len(out) > most:
        raise Damaged("expands to more than a chunk")
    if not inflate.eof:
        raise Damaged("is cut off")
    return out


def _checked(data: bytes | bytearray) -> bytes | bytearray:
    """Compare with the Fletcher checksum of 16-bit words, most significant byte first (H5_checksum_fletcher32)."""
    body, sums = data[:-4], np.frombuffer(data[-4:].rjust(4, b"\0"), dtype="<u2")
    words = np.frombuffer(body + b"\0" * (len(body) % 2), dtype=">u2").astype(np.uint64)
    first = int(words.sum()) % 65535
    second = int((words * np.arange(len(words), 0, -1, dtype=np.uint64) % np.uint64(65535)).sum()) % 65535
    if (int(sums[0]) % 65535, int(sums[1]) % 65535) != (first, second):
        raise Damaged("does not match its checksum")
    return body
