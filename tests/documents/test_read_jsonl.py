"""JSON lines: byte ranges tile lines, compressed streams, every kind of bad line."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_helpers import bads, items, listed, losses, singly, skips, texts, write

from headrace.documents.readers import streams
from headrace.documents.readers.base import Part, Record, Tally
from headrace.documents.readers.streams import Overlong, count_lines, split_lines, zstd
from headrace.errors import UserError

LINES = st.lists(
    st.one_of(
        st.text(max_size=20).map(lambda t: orjson.dumps({"text": t})),
        st.sampled_from([b"", b" ", b"\r", b"nonsense", b"\xff", b'{"text": 1}', b'{"text": "\\n"}\r']),
    ),
    max_size=12,
)


@given(LINES, st.booleans(), st.data())
def test_any_split_yields_the_rows_of_a_plain_reading(tmp_path_factory, lines, ended, data):
    raw = b"\n".join(lines) + (b"\n" if ended else b"")
    path = write(tmp_path_factory.mktemp("ranges") / "a.jsonl", raw)
    whole = singly(items(path))
    # Reference: the lines as Python splits them.
    expected = raw.split(b"\n")
    assert len(whole) == len(expected) - (expected[-1] == b"")
    cuts = data.draw(st.lists(st.integers(0, len(raw)), max_size=5).map(sorted))
    edges = [0, *cuts, len(raw)]
    file, _ = listed(path)
    pieces, row = [], 0
    block = data.draw(st.sampled_from([1, 2, 7, 1 << 20]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "BLOCK", block)
        for begin, end in pairwise(edges):
            part = Part(begin, end, row)
            pieces += singly(items(path, part))
            row += count_lines(file, part, Tally())
    assert pieces == whole
    assert row == len(whole)


@given(st.binary(max_size=60).map(lambda b: b.replace(b"x", b"\n")), st.integers(1, 9), st.integers(1, 30))
def test_split_lines(data, block, limit):
    chunks = [data[i : i + block] for i in range(0, len(data), block)]
    lines = [line for lines in split_lines(chunks, limit) for line in lines]
    expected = data.split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    assert len(lines) == len(expected)
    for line, whole in zip(lines, expected, strict=True):
        if isinstance(line, Overlong):
            assert len(whole) > limit
            assert whole.startswith(line)
        else:
            assert line == whole


def test_ranges_of_a_file_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("headrace.documents.readers.jsonl.PART_BYTES", 1000)
    path = write(tmp_path / "a.jsonl", "".join(json.dumps({"text": str(i)}) + "\n" for i in range(500)))
    from headrace.documents.readers import reader

    file, _ = listed(path)
    parts = reader("jsonl").split(file)
    assert len(parts) == -(-file.size // 1000)
    assert parts[0].row == 0
    assert all(part.row is None for part in parts[1:])
    found = [item for part in parts for item in items(path, Part(part.begin, part.end, 0))]
    assert texts(found) == [str(i) for i in range(500)]


def test_other_fields_stay(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"content": "hello", "n": 1, "text": "other"}\n')
    (record,) = items(path, text="content")
    assert record == Record(0, "hello", {"n": 1, "text": "other"})


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"nonsense", "not JSON"),
        (b'{"text": "cut', "not JSON"),
        (b'{"other": "x"}', "no text in the field 'text'; the row's other fields: other"),
        (b'{"text": null}', "the field 'text' is null"),
        (b'{"text": 3}', "holds a number, not text"),
        (b'{"text": ["x"]}', "holds a list, not text"),
        (b'["text"]', "holds a list, not an object"),
        (b'{"text": "a\xff"}', "not UTF-8: byte 0xff"),
        (b'{"text": "\xed\xa0\x80"}', "a lone surrogate"),
        (b'{"text": "\\ud800"}', "a lone surrogate"),
        (b'{"text": "\\udc00x"}', "a lone surrogate"),
        (b'{"text": "a\x00"}', "not JSON"),
        (b'{"text": NaN}', "not JSON"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_bad_lines(tmp_path, line, error):
    path = write(tmp_path / "a.jsonl", b'{"text": "before"}\n' + line + b'\n\n{"text": "behind"}')
    found = items(path)
    assert texts(found) == ["before", "behind"]
    ((row, message),) = bads(found)
    assert row == 1
    assert error in message
    assert skips(found) == [2]
    assert found[-1].row == 3


def test_escaped_nul_is_text_and_a_mark_at_the_beginning_is_none(tmp_path):
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "\\u0000"}\n')
    assert texts(items(path)) == ["\0"]


def test_a_document_of_100_mb(tmp_path):
    path = tmp_path / "a.jsonl"
    with open(path, "wb") as f:
        f.write(b'{"text": "' + b"x" * 100_000_000 + b'"}\n{"text": "y"}\n')
    big, small = texts(items(path))
    assert len(big) == 100_000_000
    assert small == "y"


def compressed(data: bytes, suffix: str) -> bytes:
    return gzip.compress(data) if suffix == ".gz" else zstd.compress(data)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_files_of_several_frames(tmp_path, suffix):
    lines = [json.dumps({"text": f"{i}"}).encode() + b"\n" for i in range(1000)]
    data = compressed(b"".join(lines[:500])[:-5], suffix) + compressed(
        b"".join(lines[:500])[-5:] + b"".join(lines[500:]), suffix
    )
    found = items(write(tmp_path / f"a.jsonl{suffix}", data))
    assert texts(found) == [str(i) for i in range(1000)]
    assert [item.row for item in found] == list(range(1000))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_truncated_and_corrupt_streams(tmp_path, suffix):
    data = compressed(b"".join(orjson.dumps({"text": str(i) * (i % 97)}) + b"\n" for i in range(200_000)), suffix)
    found = items(write(tmp_path / f"a.jsonl{suffix}", data[: len(data) // 2]))
    ((row, error, lost),) = losses(found)
    assert "cut short" in error
    assert lost == len(data) // 2
    assert row == len(found) - 1
    assert 10_000 < row < 200_000
    found = items(write(tmp_path / f"b.jsonl{suffix}", b"no such stream"))
    assert "corrupt" in losses(found)[0][1]
    assert items(write(tmp_path / f"c.jsonl{suffix}", b"")) == []


def test_zstd_with_a_long_window(tmp_path):
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 28})
    lines = b"".join(orjson.dumps({"text": str(i)}) + b"\n" for i in range(1000))
    data = compressor.compress(lines) + compressor.flush()
    assert len(texts(items(write(tmp_path / "a.jsonl.zst", data)))) == 1000
    found = items(write(tmp_path / "b.jsonl.zst", data[:-9]))
    assert "cut short" in losses(found)[0][1]


def test_a_changed_file_is_noticed(tmp_path):
    from headrace.documents.readers import reader
    from headrace.documents.readers.base import Tally

    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n')
    file, source = listed(path)
    write(path, '{"text": "longer"}\n')
    with pytest.raises(UserError, match="has changed"):
        list(reader("jsonl").read(file, Part(), source, Tally()))
