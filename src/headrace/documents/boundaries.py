"""Cut a list of files into tasks by the files' own names, so that adding or removing a file changes only one task.

Content-defined chunking (Muthitacharoen, Chen and Mazieres 2001) with a minimum and maximum size (as in FastCDC, Xia et
al. 2016), over names instead of bytes: a cut comes before a file if the hash of its name is below its share of
:data:`MEAN`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xxhash

from headrace.documents.sources import InputFile

# Bytes of text, as estimated from file sizes. A task should outlast its startup, code trees hold millions of files, and
# adding a file costs whatever its task holds: about 20 MB on average.
LEAST, MEAN, MOST = 4 << 20, 16 << 20, 32 << 20
# Bytes of text per byte on disk. Zstandard compresses text and code by 3.5 to 4.
EXPANSION = 4
PACKED = frozenset({"parquet"})  # formats with compression built in


def text_bytes(file: InputFile) -> int:
    """The text in a file, estimated from its size and compression."""
    return file.size * (EXPANSION if file.compression or file.format in PACKED else 1)


def runs(files: Sequence[InputFile]) -> Iterator[range]:
    """Cut a list of files into tasks.

    Args:
        files: the files of a source, in reading order.

    Yields:
        The positions of each task's files: one file of at least :data:`LEAST` bytes of text, or several smaller ones.
    """
    start, size = 0, 0
    for at, file in enumerate(files):
        text = text_bytes(file)
        if at > start and (
            max(text, text_bytes(files[at - 1])) >= LEAST or size + text > MOST or (size >= LEAST and _cuts(file))
        ):
            yield range(start, at)
            start, size = at, 0
        size += text
    if start < len(files):
        yield range(start, len(files))


def _cuts(file: InputFile) -> bool:
    return xxhash.xxh3_64_intdigest(file.name.encode()) < text_bytes(file) * 2**64 // MEAN
