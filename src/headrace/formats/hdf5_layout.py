"""Where an HDF5 file keeps its arrays, found by the HDF5 library in a process of its own.

The library follows what a file says, and a damaged or hostile file may end it, keep it busy, or have it load code. So
it only lists where the chunks are, in another process with bounds on memory and time;
:mod:`headrace.formats.hdf5_array` reads and expands them.
"""

from __future__ import annotations

import os
import resource
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from headrace.errors import UserError
from headrace.flow.isolation import Kept, ProcessDied

if TYPE_CHECKING:
    import h5py

CHUNK = np.dtype([("at", "<i8"), ("bytes", "<i4"), ("skipped", "<u4")])
"""A stored chunk: its first byte in the file, bytes there, and the filters that it did not go through, as bits."""

DEFLATE, SHUFFLE, FLETCHER32 = 1, 2, 3  # H5Zpublic.h
FILTERS = {DEFLATE, SHUFFLE, FLETCHER32}
_OTHERS = {4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}  # the same; h5py's lzf_filter.h
# A chunk is expanded as a whole, and so are all chunks that hold parts of a row: 22,000 rows of CrystalCoder's.
MOST_TOGETHER = 64 << 20
MOST_CHUNKS = 1 << 22  # 64 MB of CHUNK; CrystalCoder's files have 50,000
MOST_INLINE = 1 << 16  # a compact dataset lies in an object header, which is no larger
_BUSY = ("unable to lock file", "already open for write")  # H5FDsec2.c, H5Fint.c
_MEMORY = 1 << 30  # what the library may take on top of what it needs to start
_SECONDS = 30
_BYTES_A_SECOND = 1 << 24  # of chunk index; measured: 100 times that
_SENT = 1 << 16  # chunks in a message


@dataclass(frozen=True)
class Layout:
    """Where an array lies in its file.

    Attributes:
        shape: of the array.
        dtype: of its values.
        chunks: the shape of a chunk; None if it is stored in one piece.
        filters: what chunks went through, in order.
        at: the first byte of an array in one piece.
        inline: the bytes of an array that lies among the file's own structures.
        index: the chunks in row-major order, of :data:`CHUNK`; None if only the shape was asked for.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None = None
    filters: tuple[int, ...] = ()
    at: int | None = None
    inline: bytes | None = None
    index: np.ndarray | None = None


@dataclass(frozen=True)
class Described:
    """What a file holds.

    Attributes:
        attributes: whole numbers that the file states.
        arrays: by name.
    """

    attributes: dict[str, int]
    arrays: dict[str, Layout]


def describe(paths: Sequence[Path], names: Sequence[str], index: bool) -> list[Described]:
    """Look at files.

    Args:
        paths: the files.
        names: the arrays: the first must be there, the others may be.
        index: whether to list the chunks too.

    Raises:
        UserError: one of them is not an HDF5 file, is damaged, or keeps its data in a way that is not read.
    """
    needed()
    done: list[Described] = []
    parts: list[bytes] = []
    try:
        for kind, value in _library.ask([str(path.absolute()) for path in paths], list(names), index):
            if kind == "file":
                done.append(Described(value, {}))
            elif kind == "chunks":
                parts.append(b64decode(value))
            else:
                name, shape, dtype, chunks, filters, at, inline = value
                listed = np.frombuffer(b"".join(parts), dtype=CHUNK) if chunks and index else None
                parts = []
                done[-1].arrays[name] = Layout(
                    tuple(shape),
                    np.dtype(dtype),
                    tuple(chunks) if chunks else None,
                    tuple(filters),
                    at,
                    b64decode(inline) if inline is not None else None,
                    listed,
                )
    except ProcessDied as died:
        refuse(paths[max(0, len(done) - 1)], f"it ends the HDF5 library, with {died}")
    return done


_library = Kept(f"{__name__}:looked_at")


def needed() -> None:
    """See that h5py is installed.

    Raises:
        UserError: it is not.
    """
    from importlib.util import find_spec

    if find_spec("h5py") is None:
        raise UserError("Reading and writing HDF5 needs h5py.", "hdf5", "Run `pip install 'headrace[formats]'`.")


def refuse(path: Path, why: str, fix: str = "Export or download it again.") -> NoReturn:
    """Raise what says that a file is not read.

    Raises:
        UserError: always.
    """
    raise UserError(f"This HDF5 file is not read: {why}.", str(path), fix)


def looked_at(paths: list[str], names: list[str], index: bool) -> Iterator[tuple[str, Any]]:
    """The other process: what :func:`describe` puts together."""
    # A filter that is not built in is code that the library looks for on the disk ("::" is: nowhere, H5PLpublic.h).
    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
    import h5py

    _bound(resource.RLIMIT_AS, _address_space() + _MEMORY)
    for path in map(Path, paths):
        size = _size(path)
        used = resource.getrusage(resource.RUSAGE_SELF)
        _bound(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + _SECONDS + size // _BYTES_A_SECOND)
        yield "file", {}
        try:
            with h5py.File(path, "r") as file:
                yield from _file(file, path, size, names, index)
        except (UserError, KeyboardInterrupt):
            raise
        except Exception as error:
            if any(words in str(error) for words in _BUSY):
                refuse(path, "another program is writing it, or has ended while it did", "Wait until it is written.")
            refuse(path, f"it is no HDF5 file, or it is damaged ({' '.join(str(error).split())[:200]})")


def _bound(limit: int, value: int) -> None:
    _, most = resource.getrlimit(limit)
    resource.setrlimit(limit, (value if most == resource.RLIM_INFINITY else min(value, most), most))


def _address_space() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # not Linux
        return 16 << 30


def _size(path: Path) -> int:
    try:
        found = path.stat()
    except OSError as error:
        refuse(path, f"it cannot be opened ({error.strerror})", "Check the path.")
    if not stat.S_ISREG(found.st_mode):
        refuse(path, "it is not a regular file", "Give files only.")
    return found.st_size


def _file(file: h5py.File, path: Path, size: int, names: list[str], index: bool) -> Iterator[tuple[str, Any]]:
    import h5py

    for name in names:
        group: Any = file
        *above, last = name.split("/")
        for part in above:
            link = group.get(part, getlink=True) if part in group.keys() else None  # noqa: SIM118 - may lead nowhere
            group = group[part] if isinstance(link, h5py.HardLink) else {}
        link = group.get(last, getlink=True) if last in group.keys() else None  # noqa: SIM118 - may lead nowhere
        if link is None and name != names[0]:
            continue
        if link is None:
            held = ", ".join(ascii(key)[:40] for key in list(file)[:8])
            refuse(path, f"it has no dataset {name!r}, only {held or 'nothing'}", "Give files that hold sequences.")
        if not isinstance(link, h5py.HardLink):
            refuse(path, f"{name!r} is a link to elsewhere")
        data = group[last]
        if not isinstance(data, h5py.Dataset):
            refuse(path, f"{name!r} is not a dataset")
        yield from _array(data, path, size, name, index)
    n = file.attrs.get("n_examples")
    if n is not None:
        data = file[names[0]]
        # Whole numbers of any type, also alone in an array; of a line of tokens it says how the writer would cut it.
        if np.size(n) != 1 or np.asarray(n).dtype.kind not in "iuf" or (data.ndim > 1 and n != data.shape[0]):
            refuse(path, f"it says that n_examples is {str(n)[:40]} and has {data.shape[0]:,} rows")


def _array(data: h5py.Dataset, path: Path, size: int, name: str, index: bool) -> Iterator[tuple[str, Any]]:
    import h5py

    layout = data.id.get_create_plist()
    if data.is_virtual or layout.get_external_count():
        refuse(path, f"{name!r} lies in other files", "Give those files.")
    if data.shape is None or data.dtype.kind not in "iu":
        refuse(path, f"{name!r} holds {data.dtype}, not whole numbers")
    stored = data.id.get_type()
    if stored != h5py.h5t.py_create(data.dtype):
        refuse(path, f"{name!r} holds whole numbers of {stored.get_precision()} bits")
    filters = [layout.get_filter(i)[0] for i in range(layout.get_nfilters())]
    if data.chunks is not None and not set(filters) <= FILTERS:
        [other, *_] = sorted(set(filters) - FILTERS)
        refuse(
            path,
            f"{name!r} is compressed by {_OTHERS.get(other, f'filter {other}')}",
            "Write it again with gzip: h5repack -f GZIP=4 IN OUT, or h5py's create_dataset(..., compression='gzip').",
        )
    shape, dtype, item = list(data.shape), data.dtype.str, data.dtype.itemsize
    at, inline, kind = None, None, layout.get_layout()
    if data.chunks is None:
        total = item * int(np.prod(shape, dtype=object))
        if kind == h5py.h5d.COMPACT and total <= MOST_INLINE:
            inline = b64encode(data[...].tobytes()).decode()
        elif total:
            at = data.id.get_offset()
            if kind != h5py.h5d.CONTIGUOUS or at is None or at + total > size:
                refuse(path, f"{name!r} promises {total:,} bytes that are not in the file")
    else:
        _sane(data, path, name)
        if index:
            for part in _chunks(data, path, size, name):
                yield "chunks", b64encode(part).decode()
    yield "array", (name, shape, dtype, data.chunks, filters, at, inline)


def _sane(data: h5py.Dataset, path: Path, name: str) -> None:
    """Refuse chunks that nobody could read row by row, and promises of more than there is."""
    row = data.dtype.itemsize * int(
        np.prod([-(-n // c) * c for n, c in zip(data.shape[1:], data.chunks[1:], strict=True)], dtype=object)
    )
    if data.chunks[0] * row > MOST_TOGETHER:
        refuse(path, f"{name!r} keeps {data.chunks[0] * row:,} bytes together, in chunks of {data.chunks}")
    promised, held = _promised(data), data.id.get_num_chunks()
    if held < promised:
        refuse(path, f"{name!r} holds {held:,} of the {promised:,} chunks that it promises")
    if promised > MOST_CHUNKS:
        refuse(path, f"{name!r} has {promised:,} chunks, where at most {MOST_CHUNKS:,} are read", "Divide the file.")


def _promised(data: h5py.Dataset) -> int:
    return int(np.prod([-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)], dtype=object))


def _chunks(data: h5py.Dataset, path: Path, size: int, name: str) -> Iterator[bytes]:
    """The chunks in row-major order, in pieces."""
    grid = [-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]
    index = np.zeros(_promised(data), dtype=CHUNK)
    most = 2 * data.dtype.itemsize * int(np.prod(data.chunks)) + 1024  # what deflate makes of noise, and more
    if not len(index):
        return

    def add(chunk: Any) -> bool | None:
        place = 0
        for first, length, count in zip(chunk.chunk_offset, data.chunks, grid, strict=True):
            number, rest = divmod(first, length)
            if rest or number >= count:
                return True
            place = place * count + number
        if index["bytes"][place] or chunk.size > most:
            return True
        index[place] = (chunk.byte_offset, chunk.size, chunk.filter_mask & 0xFFFFFFFF)
        return None

    data.id.chunk_iter(add)
    if not index["bytes"].all() or (index["at"] < 0).any() or (index["at"] + index["bytes"] > size).any():
        refuse(path, f"the list of chunks of {name!r} is damaged")
    for start in range(0, len(index), _SENT):
        yield index[start : start + _SENT].tobytes()
