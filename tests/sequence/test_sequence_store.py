"""Reading rows: views, joints of shards, damaged folders, and a sequence of a thousand million rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_build import build, of_stage, stage

from headrace.errors import UserError
from headrace.flow.storage import read_sealed, write_sealed
from headrace.sequence import layout
from headrace.sequence.loader import Loader
from headrace.sequence.store import OPEN_SHARDS, SEGMENT, ArrowSequence, open_sequence, schema


@pytest.fixture
def sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ArrowSequence:
    monkeypatch.setattr(layout, "SHARD_BYTES", 500)
    return build(tmp_path, of_stage(stage()))


def test_rows_are_views_within_a_shard_and_copies_across(sequence: ArrowSequence) -> None:
    whole = sequence.rows(0, len(sequence))
    assert whole.shape == (len(sequence), 65)
    assert whole.dtype == np.uint16
    joint = int(sequence.artifact.row_offsets[1])
    assert sequence.rows(0, joint).base is not None
    assert np.shares_memory(sequence.rows(0, joint), sequence.rows(0, 1))
    assert (sequence.rows(joint - 1, joint + 1) == whole[joint - 1 : joint + 1]).all()
    for bad in ((-1, 1), (2, 1), (0, len(sequence) + 1)):
        with pytest.raises(IndexError):
            sequence.rows(*bad)


def test_few_shards_stay_open(sequence: ArrowSequence) -> None:
    assert len(sequence.artifact.shards) > OPEN_SHARDS
    for row in range(len(sequence)):
        sequence.rows(row, row + 1)
    assert len(sequence._shards) == OPEN_SHARDS


def test_the_files_are_read_by_arrow_as_documented(sequence: ArrowSequence) -> None:
    with pa.memory_map(str(sequence.artifact.shard_path(0))) as source:
        table = pa.ipc.open_file(source).read_all()
        table.validate(full=True)
        assert table.schema == schema(64, np.dtype(np.uint16))
        row = table.slice(0, 1).to_pylist()[0]
    assert row["tokens"] == sequence.rows(0, 1)[0].tolist()
    assert row["loss"] is None
    assert [tuple(s[name] for name in SEGMENT.names or ()) for s in row["segments"]] == sequence.segments(0).tolist()


def test_damage_is_told(sequence: ArrowSequence, tmp_path: Path) -> None:
    path = sequence.artifact.shard_path(1)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        open_sequence(sequence.artifact.path).rows(0, len(sequence))
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        open_sequence(sequence.artifact.path).rows(0, len(sequence))
    with pytest.raises(UserError, match="not a finished artifact"):
        open_sequence(tmp_path)
    documents = next((tmp_path / "artifacts").glob("documents-*"))
    with pytest.raises(UserError, match="contains documents, not a sequence"):
        open_sequence(documents)


def test_a_shard_that_becomes_shorter_is_told(sequence: ArrowSequence) -> None:
    shard = sequence.shard(0)
    n, width = shard.tokens.shape
    out = np.empty((n, width), dtype=sequence.dtype)
    shard.copy(0, n, out)
    assert (out == shard.tokens).all()
    wide = np.empty((n - 1, width), dtype=np.int64)
    shard.copy(1, n, wide)
    assert (wide == shard.tokens[1:]).all()
    with open(shard.path, "r+b") as file:
        file.truncate(shard.first + out.nbytes - 1)
    with pytest.raises(UserError, match="been truncated"):
        shard.copy(0, n, out)


def test_a_thousand_million_rows_are_opened_anywhere_without_a_scan(tmp_path: Path) -> None:
    """Twenty thousand shard entries over one small file: opening must touch none of them but the one that is read."""
    small = build(tmp_path, of_stage(stage(sources={"b": {}})))
    folder = small.artifact.path
    manifest = read_sealed(folder / "manifest.json")
    [entry] = manifest["shards"]
    shards = [{**entry, "name": f"{i:05d}.arrow", "rows": 50_000} for i in range(20_000)]
    manifest["shards"] = shards
    write_sealed(folder / "manifest.json", manifest)
    (folder / "00000.arrow").rename(folder / "12345.arrow")
    big = open_sequence(folder)
    assert len(big) == 1_000_000_000
    row = 12345 * 50_000 + 7
    assert (big.rows(row, row + 1) == big.shard(12345).tokens[7]).all()
    assert Loader(big, 8, start=row).at(row).tokens.shape == (8, 65)
