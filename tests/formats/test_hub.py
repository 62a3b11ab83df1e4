"""The folder for a hub, read as its users read it."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import UserError
from headrace.export import write
from headrace.formats import parquet_rows
from headrace.formats.format import Options
from headrace.formats.opening import open_files
from headrace.formats.sequences import SequenceExport
from headrace.sequence.provenance import beside, replay_rows
from headrace.sequence.reader import SequenceReader
from headrace.tokens.load import open_decoder


@pytest.fixture(scope="module")
def folder(sequences, tmp_path_factory) -> Path:
    return write(
        SequenceExport("hub", sequences, Options(rows_per_file=40)), tmp_path_factory.mktemp("hub") / "out", workers=0
    )


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_loads_each_stage(streaming, folder, sequences, tmp_path):
    for one in sequences:
        loaded = datasets.load_dataset(str(folder), one.name, streaming=streaming, cache_dir=str(tmp_path))
        assert set(loaded) == {"train"}
        ours = one.open()
        told = replay_rows(ours, beside(ours, "documents"), open_decoder(beside(ours, "tokenizer")), 0, len(ours))
        rows = list(loaded["train"])
        assert len(rows) == len(ours)
        for i, (row, expected) in enumerate(zip(rows, told, strict=True)):
            assert row["input_ids"] == expected.tokens
            spans = [range(*span) for segment in expected.segments for span in segment.loss]
            carried = {at for span in spans for at in span}
            real = {at for s in expected.segments if s.kind != "padding" for at in range(s.start, s.start + s.length)}
            assert set(np.flatnonzero(row["loss_mask"]).tolist()) == carried & real
            assert [s["id"] for s in row["segments"]] == [s.id for s in expected.segments]
            for segment, known in zip(row["segments"], expected.segments, strict=True):
                names = ("start", "length", "kind", "source", "epoch", "offset", "document", "license", "repo", "path")
                assert [segment[name] for name in names] == [getattr(known, name) for name in names], i
                origin = None if known.origin is None else f"{segment['origin_file']}:{segment['origin_row']}"
                assert origin == known.origin
            if all(segment.start == 0 for segment in expected.segments):
                assert row["text"] == expected.segments[0].text


def read(reader: SequenceReader) -> None:
    reader.rows(0, len(reader))
    reader.targets(0, len(reader))


def test_files_are_as_the_viewer_wants_them(folder):
    for path in folder.rglob("*.parquet"):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                column = file.metadata.row_group(group).column(0)
                assert column.compression == "ZSTD"
                assert column.has_offset_index
                assert file.metadata.row_group(group).total_byte_size < 300 << 20


def test_other_peoples_rows_are_read(tmp_path):
    """Any integers as input_ids, and labels that are -100 where there is no loss."""
    ids = np.arange(60).reshape(6, 10)
    labels = np.where(ids % 3, ids, -100)
    table = pa.table({"labels": labels.tolist(), "input_ids": pa.array(ids.tolist(), pa.large_list(pa.uint16()))})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=4)
    reader = open_files(tmp_path)
    assert (len(reader), reader.seq_len) == (6, 9)
    assert (reader.rows(1, 6) == ids[1:]).all()
    assert (reader.targets(3, 6) == (labels[3:, 1:] != -100)).all()
    assert reader.segments_in(0, 6) is None


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a"]}, "no column 'input_ids'"),
        ({"input_ids": ["a"]}, "not lists of integers"),
        ({"input_ids": [[1.5, 2.5]]}, "not lists of integers"),
        ({"input_ids": [[1, 2, 3], [1, 2]]}, "not all of one length"),
        ({"input_ids": [[1, 2, 3], [1], [1, 2, 3, 4, 5]]}, "row 1 has no list of 3 input_ids"),
        ({"input_ids": [[1, 2, 3], [1, None, 3]]}, "not all integers"),
        ({"input_ids": [[1, 2, 3], [1, -7, 3]]}, "token id -7, which is negative"),
        ({"input_ids": [[1, 2, 3]], "loss_mask": [[1, 1]]}, "row 0 has no list of 3 loss_mask"),
        ({"input_ids": [[1, 2, 3]], "labels": [[1, 2, 4]]}, "row 0 has labels that are other tokens"),
        ({"input_ids": [[1], [2]]}, "at least two tokens"),
    ],
)
def test_wrong_rows_are_told(columns, said, tmp_path):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=said) as error:
        read(open_files(tmp_path))
    assert str(tmp_path / "a.parquet") in error.value.where


def test_other_names_and_files_without_rows_are_read(tmp_path):
    """As `datasets` shards few rows: an empty file does not say how long rows would be."""
    ids = np.arange(60).reshape(6, 10)
    rows = pa.table({"tokens": ids.tolist()})
    for number, part in enumerate((rows[:0], rows[:4], rows[:0], rows[4:], rows[:0])):
        pq.write_table(part, tmp_path / f"train-{number:05d}.parquet")
    reader = open_files(tmp_path)
    assert (reader.rows(0, 6) == ids).all()
    assert (reader.rows(3, 5) == ids[3:5]).all()
    for path in sorted(tmp_path.glob("*.parquet"))[1::2]:
        path.unlink()
    with pytest.raises(UserError, match="no rows here"):
        open_files(tmp_path)
    assert len(open_files(tmp_path, seq_len=9)) == 0


def test_a_few_bytes_that_stand_for_many_are_refused(tmp_path, monkeypatch):
    # Runs of one value: 4 KB on disk, 4 MB as int32.
    big = pa.ListArray.from_arrays(pa.array([0, 1 << 20], pa.int32()), pa.array(np.zeros(1 << 20, dtype=np.int8)))
    pq.write_table(pa.table({"input_ids": big}), tmp_path / "a.parquet", compression="zstd")
    monkeypatch.setattr(parquet_rows, "MOST_GROUP", 1 << 20)
    reader = open_files(tmp_path)
    with pytest.raises(UserError, match="expands to more than"):
        reader.rows(0, 1)


def test_metadata_that_end_the_library_end_no_process(tmp_path):
    """For some damage in the footer, such as a codec that there is none, pyarrow aborts when it is asked about it."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"input_ids": [[1, 2, 3]] * 50}), path, store_schema=False, compression="zstd")
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    said = ""
    # The codec is ZSTD, 6, in Thrift's zigzag; one of those bytes is it.
    for at in range(footer, len(whole) - 8):
        if whole[at] == 12 and "ends" not in said:
            path.write_bytes(whole[:at] + bytes([126]) + whole[at + 1 :])
            try:
                read(open_files(path))
            except UserError as error:
                said = error.what
    assert "ends the Parquet library" in said
