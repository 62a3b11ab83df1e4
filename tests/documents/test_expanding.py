"""Small tables that stand for much: memory follows what is decoded at once, not what the file comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ALLOWED = 220 << 20  # bytes above what a file of one row takes; each table below comes to more

SCRIPT = """
import json, resource, sys
from pathlib import Path
from reading_helpers import listed
from headrace.documents.readers import reader
from headrace.documents.readers.base import Bad, Lost, Part, Tally
from headrace.errors import UserError

file, source = listed(Path(sys.argv[1]))
tally, said = Tally(memory=200 << 20), {"documents": 0, "bad": 0, "lost": 0, "error": ""}
try:
    for item in reader(file.format).read(file, Part(), source, tally):
        kind = "bad" if isinstance(item, Bad) else "lost" if isinstance(item, Lost) else "documents"
        said[kind] += getattr(item, "rows", 1)
except UserError as error:
    said["error"] = error.what
peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
print(json.dumps(said | {"peak": peak}))
"""


def read(path: Path) -> dict:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    environment |= {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def shared_prefixes(path: Path) -> None:
    text = "x" * 600_000
    table = pa.table({"text": [text + str(i) for i in range(1000)]})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY"}, compression="none")


def dictionary(path: Path) -> None:
    pq.write_table(pa.table({"text": ["ab" * 100_000, "c"] * 3000}), path, compression="zstd")


def one_text(path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * 300_000_000]}), path, compression="zstd", use_dictionary=False)


def list_of_nulls(path: Path) -> None:
    table = pa.table({"text": ["a"] * 3, "list": pa.array([[None] * 100] * 3, pa.list_(pa.int64()))})
    many = pa.ListArray.from_arrays([0, 1, 2, 100_000_000], pa.nulls(100_000_000, pa.int64()))
    pq.write_table(table.set_column(1, "list", many), path, compression="zstd")


def compressed_batch(path: Path) -> None:
    table = pa.table({"text": ["x" * 1_000_000] * 600})
    with pa.ipc.new_stream(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize(
    ("make", "suffix", "documents", "told"),
    [
        (shared_prefixes, "parquet", 1000, ""),
        (dictionary, "parquet", 6000, ""),
        pytest.param(one_text, "parquet", 0, "", marks=pytest.mark.slow),
        pytest.param(list_of_nulls, "parquet", 0, "", marks=pytest.mark.slow),
        (compressed_batch, "arrow", 0, "Decompressing a batch takes"),
    ],
)
def test_memory_follows_what_is_decoded(tmp_path, make: Callable[[Path], None], suffix, documents, told):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "small.parquet")
    least = read(tmp_path / "small.parquet")["peak"]
    path = tmp_path / f"a.{suffix}"
    make(path)
    said = read(path)
    assert said["peak"] - least < ALLOWED
    assert said["documents"] == documents
    assert said["error"].startswith(told)
    assert bool(said["bad"] or said["error"]) == (documents == 0)
