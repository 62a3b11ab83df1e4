"""Parquet and Arrow: rows, row groups, batches, broken bytes."""

from __future__ import annotations

import datetime
import decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reading_helpers import bads, items, listed, texts, write

from headrace.documents.readers import reader
from headrace.documents.readers.arrow_messages import BATCH, messages
from headrace.documents.readers.base import Bad, Lost, Part, Record
from headrace.errors import UserError


def table(n: int, size: int = 1) -> pa.Table:
    return pa.table({"text": [f"{i} " * size for i in range(n)], "stars": list(range(n)), "none": [None] * n})


def test_parquet_rows_and_fields(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(1000), path, row_group_size=300)
    found = items(path)
    assert texts(found) == [f"{i} " for i in range(1000)]
    assert [item.row for item in found] == list(range(1000))
    assert found[3].fields == {"stars": 3, "none": None}


def test_parquet_parts_tile_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.documents.readers.parquet.PART_BYTES", 20_000)
    path = tmp_path / "a.parquet"
    pq.write_table(table(1000, 20), path, row_group_size=70, compression="none", use_dictionary=False)
    file, _ = listed(path)
    parts = reader("parquet").split(file)
    assert len(parts) > 2
    found = [item for part in parts for item in items(path, part)]
    assert found == items(path)
    assert [item.row for item in found] == list(range(1000))


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_file_and_stream(tmp_path, kind):
    path = tmp_path / "a.arrow"
    data = table(1000)
    new = pa.ipc.new_file if kind == "file" else pa.ipc.new_stream
    with new(str(path), data.schema) as writer:
        writer.write_table(data, max_chunksize=300)
    found = items(path)
    assert texts(found) == data["text"].to_pylist()
    assert [item.row for item in found] == list(range(1000))


def test_big_batches_are_taken_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.documents.readers.tables.BATCH_BYTES", 100)
    path = tmp_path / "a.arrow"
    data = table(1000)
    with pa.ipc.new_stream(str(path), data.schema) as writer:
        writer.write_table(data)
    assert texts(items(path)) == data["text"].to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize("type_", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_text_that_is_not_utf8(tmp_path, suffix, type_):
    # Arrow lets invalid bytes through where they are declared to be text.
    raw = pa.array([b"good", b"\xff", b"\xed\xa0\x80", None, b"\x00\x00"], pa.large_binary())
    flat = raw.cast(pa.binary()) if type_ == pa.binary() else raw
    if pa.types.is_dictionary(type_):
        flat = pa.Array.from_buffers(pa.string(), len(raw), raw.cast(pa.binary()).buffers()).dictionary_encode()
    elif type_ != pa.binary():
        flat = pa.Array.from_buffers(
            type_, len(raw), (raw if type_ == pa.large_string() else raw.cast(pa.binary())).buffers()
        )
    data = pa.table({"text": flat, "n": list(range(5))})
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(data, path)
    else:
        with pa.ipc.new_file(str(path), data.schema) as writer:
            writer.write_table(data)
    found = items(path)
    assert texts(found) == ["good", "\0\0"]
    assert [row for row, _ in bads(found)] == [1, 2, 3]
    assert "0xff" in bads(found)[0][1]
    assert "surrogate" in bads(found)[1][1]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_broken_files(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table(1000), path)
    else:
        with pa.ipc.new_file(str(path), table(1000).schema) as writer:
            writer.write_table(table(1000))
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], b"nonsense" * 10, b""):
        (lost,) = items(write(tmp_path / f"b.{suffix}", broken))
        assert isinstance(lost, Lost)
        assert lost.bytes == max(len(broken), 1)
        assert "corrupt" in lost.error


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_wrong_column(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        pq.write_table(table(3), path)
    else:
        with pa.ipc.new_stream(str(path), table(3).schema) as writer:
            writer.write_table(table(3))
    with pytest.raises(UserError, match="content") as caught:
        items(path, text="content")
    assert "text, stars, none" in caught.value.fix


def test_a_damaged_row_group_is_lost_and_the_others_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(3000, 20), path, row_group_size=1000, compression="none", use_dictionary=False, version="2.6")
    second = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    data[second.data_page_offset : second.data_page_offset + 8] = b"\xff" * 8
    found = items(write(tmp_path / "b.parquet", bytes(data)))
    assert [item.row for item in found if isinstance(item, Record)] == [*range(1000), *range(2000, 3000)]
    (lost,) = [item for item in found if isinstance(item, Lost)]
    assert (lost.row, lost.rows, lost.bytes) == (1000, 1000, 0)
    assert "row group 1" in lost.error


def test_page_checksums_are_verified(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(table(500, 20), path, compression="none", use_dictionary=False, write_page_checksum=True)
    data = path.read_bytes()
    at = data.index(b"321 321")
    found = items(write(tmp_path / "b.parquet", data[:at] + b"X" + data[at + 1 :]))
    assert sum(item.rows for item in found if isinstance(item, Lost)) == 500
    assert "CRC" in found[-1].error


@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_damaged_batch_is_lost_and_the_others_are_read(tmp_path, new, compression):
    path = tmp_path / "a.arrow"
    data = table(900, 20).append_column("word", pa.array([f"w{i % 5}" for i in range(900)]).dictionary_encode())
    with new(str(path), data.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in data.to_batches(max_chunksize=300):
            writer.write_batch(batch)
    raw = bytearray(path.read_bytes())
    with open(path, "rb") as stream:
        found = list(messages(stream, 8 if raw.startswith(b"ARROW1") else 0, len(raw)))
        second = [message for message in found if message.kind == BATCH][1]
    raw[second.end - 400 : second.end] = b"\xfe" * 400
    found = items(write(tmp_path / "b.arrow", bytes(raw)))
    assert [item.row for item in found if isinstance(item, Record)] == [*range(300), *range(600, 900)]
    (lost,) = [item for item in found if isinstance(item, Lost)]
    assert (lost.row, lost.rows) == (300, 300)


def test_an_arrow_file_cut_short_gives_what_it_has(tmp_path):
    path = tmp_path / "a.arrow"
    data = table(900, 20)
    with pa.ipc.new_file(str(path), data.schema) as writer:
        writer.write_table(data, max_chunksize=300)
    raw = path.read_bytes()
    found = items(write(tmp_path / "b.arrow", raw[: len(raw) * 3 // 5]))
    assert texts(found) == data["text"].to_pylist()[:300]
    assert found[-1] == Lost(300, found[-1].error, bytes=len(raw) * 3 // 5)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_many_rows_without_text_are_told_as_one(tmp_path, suffix):
    count = 1_000_000
    path = tmp_path / f"a.{suffix}"
    data = pa.table({"text": pa.nulls(count, pa.string()), "n": pa.nulls(count)})
    if suffix == "parquet":
        pq.write_table(data, path)
    else:
        with pa.ipc.new_stream(str(path), data.schema) as writer:
            writer.write_table(data)
    found = items(path)
    assert all(isinstance(item, Bad) and item.error == "the field 'text' is null" for item in found)
    assert sum(item.rows for item in found) == count
    assert len(found) <= 16


def test_text_and_fields_inside_others(tmp_path):
    path = tmp_path / "a.parquet"
    doc = [{"raw": f"text {i}", "n": i} for i in range(10)]
    pq.write_table(pa.table({"doc": doc, "a.b": list("0123456789")}), path)
    found = items(path, text="doc.raw")
    assert texts(found) == [f"text {i}" for i in range(10)]
    assert found[3].fields == {"doc": {"n": 3}, "a.b": "3"}
    assert texts(items(path, text="a.b")) == list("0123456789")
    with pytest.raises(UserError, match=r"no column 'doc\.rwa'") as caught:
        items(path, text="doc.rwa")
    assert "Did you mean 'doc.raw'?" in caught.value.fix


def test_equal_names_are_told_apart(tmp_path):
    path = tmp_path / "a.arrow"
    batch = pa.record_batch([pa.array(["x"]), pa.array([1]), pa.array([2])], names=["text", "n", "n"])
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(batch)
    (record,) = items(path)
    assert record.fields == {"n": 1, "n_2": 2}


def test_values_that_json_lacks_are_kept_as_text(tmp_path):
    from headrace.documents.rows import RowMaker

    path = tmp_path / "a.parquet"
    values = {
        "text": ["x"],
        "when": [datetime.datetime(2024, 1, 2, 3, 4)],
        "price": [decimal.Decimal("1.50")],
        "raw": [b"\xff\x00"],
        "nan": [float("nan")],
        "list": [[1, 2]],
    }
    pq.write_table(pa.table(values), path)
    (record,) = items(path, Part())
    _, source = listed(path)
    row, characters = RowMaker("s", source, "nfc").make("a.parquet", record)
    assert characters == 1
    assert row[-2] == b'{"when":"2024-01-02T03:04:00","price":"1.50","raw":"ff00","nan":"NaN","list":[1,2]}'
