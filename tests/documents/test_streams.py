"""Compressed files of every kind: whole, in several members, padded, cut short, altered, and larger than memory."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tracemalloc

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_helpers import bads, items, listed, losses, texts, write

from headrace.documents.readers import reader, streams
from headrace.documents.readers.base import Lost, Part, Record, Tally
from headrace.documents.readers.streams import blocks, zstd
from headrace.errors import MemoryShareError
from quick import examples

COMPRESS = {
    ".gz": gzip.compress,
    ".zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
    ".xz": lzma.compress,
    ".bz2": bz2.compress,
}
RANDOM = random.Random(7)
ROWS = [f"{i} {RANDOM.randbytes(RANDOM.randrange(60)).hex()}" for i in range(3000)]
DATA = b"".join(orjson.dumps({"text": text}) + b"\n" for text in ROWS)
every_kind = pytest.mark.parametrize("suffix", COMPRESS)


def frame(window_log: int, data: bytes) -> bytes:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: window_log})
    return compressor.compress(data) + compressor.flush()


@every_kind
def test_several_members_and_padding(tmp_path, suffix):
    compress = COMPRESS[suffix]
    pieces = [DATA[:20_001], b"", DATA[20_001:50_000], DATA[50_000:]]
    data = b"".join(compress(piece) + b"\0" * 4 * i for i, piece in enumerate(pieces))
    found = items(write(tmp_path / f"a.jsonl{suffix}", data + b"\0" * 100_000))
    assert texts(found) == ROWS
    assert losses(found) == []


@every_kind
@settings(max_examples=examples(25))
@given(st.data())
def test_what_is_cut_short_is_told_wherever_it_is(tmp_path_factory, suffix, data):
    whole = COMPRESS[suffix](DATA)
    cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
    found = items(write(tmp_path_factory.mktemp("cut") / f"a.jsonl{suffix}", cut))
    ((row, error, lost),) = losses(found)
    assert "cut short" in error
    assert lost == len(cut)
    given_out = texts(found)
    assert given_out == ROWS[: len(given_out)]
    assert row == len(given_out)


@every_kind
@settings(max_examples=examples(25))
@given(st.data())
def test_what_is_altered_is_never_taken_for_whole(tmp_path_factory, suffix, data):
    altered = bytearray(COMPRESS[suffix](DATA))
    # The head of gzip and the reserved bits of zstd hold what concerns nobody: times, names, unused flags.
    at = data.draw(st.integers(10, len(altered) - 1))
    altered[at] ^= 1 << data.draw(st.integers(0, 7))
    found = items(write(tmp_path_factory.mktemp("altered") / f"a.jsonl{suffix}", bytes(altered)))
    assert losses(found) or texts(found) == ROWS
    assert all(0 < lost <= len(altered) for _, _, lost in losses(found))


@every_kind
def test_what_follows_the_last_member_is_lost_and_nothing_else(tmp_path, suffix):
    data = COMPRESS[suffix](DATA)
    found = items(write(tmp_path / f"a.jsonl{suffix}", data + b"trailing garbage"))
    assert texts(found) == ROWS
    assert [lost for _, _, lost in losses(found)] == [16]


def test_a_checksum_that_does_not_match_condemns_its_member(tmp_path):
    first, second = gzip.compress(DATA[:20_001]), gzip.compress(DATA[20_001:])
    broken = first + second[:-8] + bytes([second[-8] ^ 1]) + second[-7:]
    ((_, error, lost),) = losses(items(write(tmp_path / "a.jsonl.gz", broken)))
    assert error == "the checksum of the gzip stream does not match"
    assert lost == len(second)


def test_long_windows_in_later_frames_and_behind_skippable_ones(tmp_path):
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
    data = skippable + frame(20, DATA[:20_001]) + skippable + frame(28, DATA[20_001:])
    assert texts(items(write(tmp_path / "a.jsonl.zst", data))) == ROWS


@pytest.mark.parametrize(("suffix", "data"), [(".zst", frame(28, DATA)), (".xz", lzma.compress(DATA, preset=9))])
def test_windows_beyond_the_memory_are_told(tmp_path, suffix, data):
    file, _ = listed(write(tmp_path / f"a.jsonl{suffix}", data))
    assert b"".join(blocks(file, Tally(memory=1 << 30))) == DATA
    with pytest.raises(MemoryShareError, match="has a window of more than 50,000,000 bytes"):
        list(blocks(file, Tally(memory=100_000_000)))


@every_kind
def test_blocks_are_bounded_whatever_the_input_expands_to(tmp_path, suffix):
    size = 40_000_000
    path = write(tmp_path / f"a.jsonl{suffix}", COMPRESS[suffix](b'{"text": "' + b"x" * size + b'"}\n{"text": "y"}\n'))
    file, source = listed(path)
    moved: list[int] = []
    tally = Tally(limit=1_000_000, advance=moved.append)
    tracemalloc.start()
    found = list(reader("jsonl").read(file, Part(), source, tally))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert bads(found) == [(0, "too large: 40,000,012 bytes, limit 1,000,000 (documents.max_document)")]
    assert texts(found) == ["y"]
    assert peak < 12_000_000  # of which xz has 8 MiB for its window
    assert max(moved) <= streams.EXPANDED
    assert sum(moved) == size + 13 + 14


def test_a_document_within_the_limit_but_not_within_the_memory(tmp_path):
    file, source = listed(write(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 20_000_000 + b'"}\n'))
    (record,) = reader("jsonl").read(file, Part(), source, Tally())
    assert isinstance(record, Record)
    with pytest.raises(MemoryShareError, match="A document of 20,000,012 bytes") as caught:
        list(reader("jsonl").read(file, Part(), source, Tally(memory=100_000_000)))
    assert caught.value.where == "line 1"


def test_elements_of_an_array_larger_than_the_limit(tmp_path):
    data = b'[{"text": "a"}, {"text": "' + b"x" * 5000 + b'"}, {"text": "b"}]'
    file, source = listed(write(tmp_path / "a.json", data))
    found = list(reader("json").read(file, Part(), source, Tally(limit=1000)))
    assert texts(found) == ["a", "b"]
    assert [row for row, _ in bads(found)] == [1]


def test_values_count_by_what_they_take_in_memory(tmp_path):
    data = b'{"text": "x", "a": [' + b"{}," * 1_000_000 + b"{}]}\n" + b'{"text": "y"}\n'
    file, source = listed(write(tmp_path / "a.jsonl", data))
    found = list(reader("jsonl").read(file, Part(), source, Tally(limit=10_000_000)))
    assert texts(found) == ["y"]
    ((row, error),) = bads(found)
    assert row == 0
    assert error.startswith("too large: ")
    commas = orjson.dumps({"text": "," * 3_000_000}) + b"\n"
    file, source = listed(write(tmp_path / "b.jsonl", commas))
    assert len(list(reader("jsonl").read(file, Part(), source, Tally(limit=10_000_000)))) == 1


@pytest.mark.parametrize(("data", "n"), [(b"\n" * 3_000_000, 1), (b"\r\n" * 1_000_000, 1), (b"x\n" * 1_000_000, 1001)])
def test_a_file_of_nothing_costs_a_few_items(tmp_path, data, n):
    file, source = listed(write(tmp_path / "a.jsonl", data + b'{"text": "y"}\n\n'))
    tally = Tally()
    found = list(reader("jsonl").read(file, Part(), source, tally))
    assert texts(found) == ["y"]
    assert len(found) == n + 2
    assert tally.read == data.count(b"\n") + 2
    assert found[n].row == data.count(b"\n")


def test_ranges_within_one_line_are_not_read_to_its_end(tmp_path):
    file, _ = listed(write(tmp_path / "a.jsonl", b"x" * 5_000_000 + b"\n"))
    moved: list[int] = []
    assert list(streams.range_blocks(file, Part(1000, 2000), Tally(advance=moved.append))) == []
    assert sum(moved) <= streams.BLOCK


def test_a_text_file_larger_than_the_limit(tmp_path):
    for name, data in (("a.txt", b"x" * 5000), ("b.txt.gz", gzip.compress(b"x" * 5000))):
        file, source = listed(write(tmp_path / name, data))
        (found,) = reader("text").read(file, Part(), source, Tally(limit=4999))
        assert not isinstance(found, Record | Lost)
        assert found.error == "too large: 5,000 bytes, limit 4,999 (documents.max_document)"
        (found,) = reader("text").read(file, Part(), source, Tally(limit=5000))
        assert isinstance(found, Record)
