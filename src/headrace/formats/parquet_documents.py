"""Documents in Parquet, as hubs and ``datasets`` read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.formats.documents import OrderedFormat
from headrace.formats.records import records, schema

COMPRESSION: dict[str, Any] = {"compression": "zstd", "compression_level": 3}


class ParquetDocuments(OrderedFormat):
    """Parquet, zstd, row groups of about 8 MB with an index of their pages."""

    name = "parquet"
    about = "Parquet: id, text or messages, provenance, license, meta"
    suffix = ".parquet"

    def write(self, path: Path, folder: str, tables: Iterator[pa.Table]) -> None:
        """Write row groups."""
        columns = schema(folder)
        plain = [name for name in columns.names if name not in ("id", "text", "meta", "evidence")]
        with pq.ParquetWriter(
            path, columns, use_dictionary=plain, write_page_index=True, write_statistics=plain, **COMPRESSION
        ) as file:
            for table in tables:
                file.write_table(records(table, folder), row_group_size=len(table))

    def made_with(self) -> dict[str, str]:
        """The library that wrote the files: its version is in them."""
        return {"pyarrow": pa.__version__}
