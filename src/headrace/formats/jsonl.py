"""JSON Lines of documents, compressed: see :mod:`headrace.formats.records` for the fields."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import orjson
import pyarrow as pa

from headrace.formats.documents import OrderedFormat
from headrace.formats.records import records, schema

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# SlimPajama's files have level 3. Decoders need not support windows above 8 MB (RFC 8878, 3.1.1.1.2), nor do all go on
# to a second frame; so there is one, whose window is 2 MB, this level's own.
ZSTD: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 3,
    zstd.CompressionParameter.window_log: 21,
    zstd.CompressionParameter.checksum_flag: 1,
}
GZIP_LEVEL = 6


class _Compressor(Protocol):
    def compress(self, data: bytes) -> bytes: ...
    def flush(self) -> bytes: ...


class JsonLines(OrderedFormat):
    """JSON Lines.

    Args:
        compression: ``zst`` or ``gz``.
    """

    def __init__(self, compression: str) -> None:
        self._compression = compression
        self.name = f"jsonl.{compression}"  # type: ignore[misc]
        self.suffix = f".jsonl.{compression}"  # type: ignore[misc]
        self.about = f"JSON Lines in .{compression}: id, text or messages, provenance, license, meta"  # type: ignore[misc]

    def write(self, path: Path, folder: str, tables: Iterator[pa.Table]) -> None:
        """Write lines."""
        with compressed(path, self._compression) as put:
            for table in tables:
                put(b"".join(orjson.dumps(row) + b"\n" for row in records(table, folder).to_pylist()))

    def features(self, folder: str) -> pa.Schema:
        """Said in README.md: a reader of JSON would infer them from the first rows, where a field may be null."""
        return schema(folder)

    def made_with(self) -> dict[str, str]:
        """The compressor."""
        return made_with(self._compression)


def made_with(compression: str) -> dict[str, str]:
    """The version of the library that compresses: another may give other bytes for the same lines."""
    return {"zstd": zstd.zstd_version} if compression == "zst" else {"zlib": zlib.ZLIB_RUNTIME_VERSION}


@contextmanager
def compressed(path: Path, compression: str) -> Iterator[Any]:
    """A function that appends bytes to a compressed file."""
    compressor: _Compressor = (
        zstd.ZstdCompressor(options=ZSTD) if compression == "zst" else zlib.compressobj(GZIP_LEVEL, wbits=31)
    )
    file: IO[bytes]
    with open(path, "wb") as file:
        yield lambda data: file.write(compressor.compress(data))
        file.write(compressor.flush())
