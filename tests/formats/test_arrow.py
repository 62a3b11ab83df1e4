"""Arrow: headrace's own shards as others read them, linked by an export; and other people's Arrow files opened."""

from __future__ import annotations

import os
from pathlib import Path

import datasets
import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest
from test_exports_page import pieces

from headrace.errors import UserError
from headrace.export import write
from headrace.formats import arrow
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.sequences import SequenceExport


def test_an_export_takes_no_room(sequences, tmp_path):
    ours = sequences[0].open()
    out = write(SequenceExport("arrow", sequences[:1], Options()), tmp_path / "out", workers=2)
    shards = [ours.artifact.shard_path(i) for i in range(len(ours.artifact.shards))]
    assert len(shards) > 2
    for path, shard in zip(sorted(out.glob("one/*.arrow")), shards, strict=True):
        assert path.samefile(shard)
    theirs = open_files(out).verified()
    assert (theirs.rows(0, len(ours)) == ours.rows(0, len(ours))).all()


def test_where_files_cannot_be_linked_they_are_copied(sequences, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    out = write(SequenceExport("arrow", sequences[:1], Options()), tmp_path / "out", workers=0)
    shard = sequences[0].open().artifact.shard_path(0)
    assert not (out / "one/data-00000.arrow").samefile(shard)
    assert (out / "one/data-00000.arrow").read_bytes() == shard.read_bytes()


@pytest.mark.parametrize("exported", [False, True])
def test_datasets_polars_and_duckdb_read_the_shards(exported, sequences, tmp_path):
    ours = sequences[1].open()
    folder = ours.path
    if exported:
        folder = write(SequenceExport("arrow", sequences[1:2], Options(40)), tmp_path / "out", workers=0) / "two"
    files = sorted(map(str, folder.glob("*.arrow")))
    tokens = ours.rows(0, len(ours)).tolist()
    for streaming in (False, True):
        loaded = datasets.load_dataset("arrow", data_files=files, cache_dir=str(tmp_path), streaming=streaming)
        assert [row["tokens"] for row in loaded["train"]] == tokens
    assert polars.concat([polars.read_ipc(file) for file in files])["tokens"].to_list() == tokens
    shards = pa.concat_tables([pa.ipc.open_file(pa.memory_map(file)).read_all() for file in files])
    counted = duckdb.from_arrow(shards).aggregate("sum(len(segments)), count(*)").fetchall()
    segments = ours.segments_in(0, len(ours))
    assert counted == [(int(segments.bounds[-1] - segments.bounds[0]), len(ours))]


def test_the_page(sequences, tmp_path):
    ours = sequences[1].open()
    out = write(SequenceExport("arrow", sequences[1:2], Options()), tmp_path / "out", workers=0)
    names = {"out": str(out), "stage": "two"}
    for piece in pieces("arrow"):
        exec(piece, names)
    assert [row["tokens"] for row in names["rows"]] == ours.rows(0, len(ours)).tolist()
    assert names["frame"]["tokens"].to_list() == ours.rows(0, 10).tolist()
    assert names["table"]["tokens"].to_pylist() == ours.rows(0, len(names["table"])).tolist()


@pytest.mark.parametrize("saved", ["file", "stream", "compressed", "datasets"])
def test_other_peoples_rows_are_read(saved, tmp_path):
    ids = np.arange(60).reshape(6, 10)
    labels = np.where(ids % 3, ids, -100)
    table = pa.table({"labels": labels.tolist(), "input_ids": pa.array(ids.tolist(), pa.list_(pa.int32()))})
    if saved == "datasets":
        datasets.Dataset(table).save_to_disk(str(tmp_path))
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd" if saved == "compressed" else None)
        new = pa.ipc.new_stream if saved == "stream" else pa.ipc.new_file
        with new(str(tmp_path / "a.arrow"), table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=4)
    reader = open_files(tmp_path)
    assert (len(reader), reader.seq_len) == (6, 9)
    assert (reader.rows(1, 6) == ids[1:]).all()
    assert (reader.targets(3, 6) == (labels[3:, 1:] != -100)).all()
    assert reader.segments_in(0, 6) is None


def test_files_and_batches_without_rows_are_passed_over(tmp_path):
    ids = np.arange(60).reshape(6, 10)
    rows = pa.table({"tokens": ids.tolist()})
    for number, batches in enumerate(((0,), (0, 4, 0), (), (2, 0))):
        with pa.ipc.new_file(str(tmp_path / f"{number}.arrow"), rows.schema) as writer:
            at = 4 if number == 3 else 0
            for size in batches:
                writer.write_batch(rows[at : at + size].combine_chunks().to_batches()[0] if size else EMPTY)
                at += size
    reader = open_files(tmp_path)
    assert (reader.rows(0, 6) == ids).all()
    assert (reader.rows(3, 5) == ids[3:5]).all()


EMPTY = pa.record_batch({"tokens": pa.array([], pa.list_(pa.int64()))})


def read(path: Path) -> None:
    reader = open_files(path)
    reader.rows(0, len(reader))
    reader.targets(0, len(reader))


def test_wrong_rows_are_told(tmp_path):
    def told(columns, **options):
        table = pa.table(columns)
        with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as w:
            w.write_table(table)
        with pytest.raises(UserError) as error:
            read(tmp_path)
        assert str(tmp_path / "a.arrow") in error.value.where
        return error.value.what

    assert "no column 'input_ids'" in told({"text": ["a"]})
    assert "not lists of integers" in told({"tokens": [[1.5]]})
    assert "row 1 has no list of 3 input_ids" in told({"input_ids": [[1, 2, 3], [1]]})
    assert "token id -7" in told({"input_ids": [[1, 2, 3], [1, -7, 3]]})
    assert "no two tokens" in told({"input_ids": [[1]]})
    big = {"input_ids": pa.ListArray.from_arrays(pa.array([0, 1 << 16], pa.int32()), np.zeros(1 << 16, np.int32))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrow, "MOST_GROUP", 1 << 10)
        assert "expand to more than" in told(big, compression="zstd")
