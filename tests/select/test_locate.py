"""Finding a document by its id, its origin or its row."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from measure_graph import documents_batch

from headrace.documents.ids import content_id
from headrace.errors import UserError
from headrace.flow.artifact import Artifact, Manifest
from headrace.select.why.locate import locate

TEXTS = ["first", "second", "first", "fourth"]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder: Path = tmp_path_factory.mktemp("documents")
    table = pa.Table.from_batches([documents_batch([{"text": text, "origin_file": "a:b.txt"} for text in TEXTS])])
    shards = []
    for shard, start in enumerate((0, 3)):
        part = table.slice(start, 3)
        pq.write_table(part, folder / f"{shard:05d}.parquet")
        shards.append({"name": f"{shard:05d}.parquet", "rows": part.num_rows, "bytes": 0, "digest": ""})
    return Artifact(folder, Manifest("documents", 1, "", {}, {}, shards, [], {}))


def test_by_id_origin_and_row(documents: Artifact) -> None:
    identity = content_id(b"first")
    assert locate(documents, identity) == [0, 2]
    assert locate(documents, identity[:8]) == [0, 2]
    assert locate(documents, content_id(b"fourth")) == [3]
    assert locate(documents, "s:a:b.txt:3") == [3]
    assert locate(documents, "row:2") == [2]


NO_NUMBERS = ["9" * 20, "9" * 5000, "-1", "٣"]


@pytest.mark.parametrize(
    "name",
    [
        *("row:4", "0" * 32, "s:a:b.txt:9", "t:a:b.txt:0", "abc", "plain words", "", "s:a\udcff:1"),
        *(prefix + number for prefix in ("row:", "s:a:b.txt:") for number in NO_NUMBERS),
    ],
)
def test_what_is_not_there_is_told(documents: Artifact, name: str) -> None:
    with pytest.raises(UserError):
        locate(documents, name)
