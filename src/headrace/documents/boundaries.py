"""Where a listing of files is cut into tasks: by the files' own names, so that a file more or less changes one task.

Content-defined chunking (Muthitacharoen, Chen and Mazieres 2001) with a least and a most (as FastCDC, Xia et al. 2016),
over names instead of bytes: a cut falls before a file when the hash of its name is below its share of :data:`MEAN`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import xxhash

from headrace.documents.sources import InputFile

# Bytes of text, as far as sizes tell. A task should outlast its start, code trees hold millions of files, and what a
# file more costs is what its task holds: on the average some 20 MB.
LEAST, MEAN, MOST = 4 << 20, 16 << 20, 32 << 20
# Bytes of text in a byte on disk. Zstandard makes 3.5 to 4 of text and code.
EXPANSION = 4
PACKED = frozenset({"parquet"})  # formats that are compressed inside


def text_bytes(file: InputFile) -> int:
    """The text that a file holds, by its size and whether it is compressed."""
    return file.size * (EXPANSION if file.compression or file.format in PACKED else 1)


def runs(files: Sequence[InputFile]) -> Iterator[range]:
    """Cut a listing into tasks.

    Args:
        files: the files of a source, in reading order.

    Yields:
        The positions of each run's files: one of at least :data:`LEAST` bytes of text, or several smaller ones.
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
