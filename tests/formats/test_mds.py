"""MDS shards, read by MosaicML's own StreamingDataset."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from samples import assert_equal, told

from bench import mosaic
from headrace.errors import UserError
from headrace.export import write
from headrace.formats import samples
from headrace.formats.format import Options
from headrace.formats.sequences import SequenceExport

ROWS = 40


@pytest.fixture(scope="module")
def streaming():
    package = mosaic.streaming()
    importlib.import_module("streaming.base.util").clean_stale_shared_memory()
    return package


@pytest.fixture(scope="module")
def folder(sequences, tmp_path_factory) -> Path:
    step = SequenceExport("mds", sequences, Options(rows_per_file=ROWS))
    return write(step, tmp_path_factory.mktemp("mds") / "out", workers=0)


def test_streaming_reads_rows_in_order(folder, sequences, streaming, tmp_path):
    for one in sequences:
        local = tmp_path / one.name  # shards are copied, and compared with their hashes
        dataset = streaming.StreamingDataset(
            remote=str(folder / one.name), local=str(local), shuffle=False, batch_size=8, validate_hash="xxh3_128"
        )
        rows = [(s["tokens"], s["loss_mask"], json.loads(s["segments"])) for s in dataset]
        assert_equal(rows, one)
        assert (dataset[len(rows) - 3]["tokens"] == rows[-3][0]).all()


def test_bytes_are_those_of_their_writer(folder, sequences, streaming, tmp_path):
    one = sequences[1]
    index = json.loads((folder / one.name / "index.json").read_text())
    columns = dict(zip(index["shards"][0]["column_names"], index["shards"][0]["column_encodings"], strict=True))
    out = tmp_path / "theirs"
    writer = streaming.MDSWriter(columns=columns, out=str(out), size_limit=None, hashes=["xxh3_128"])
    for row, sample in enumerate(told(one)):
        if row and row % ROWS == 0:
            writer.flush_shard()
            writer._reset_cache()
        segments = json.dumps(sample.segments, separators=(",", ":"))
        writer.write({"tokens": sample.tokens, "loss_mask": sample.loss.astype("u1"), "segments": segments})
    writer.finish()
    for theirs in out.iterdir():
        ours = (folder / one.name / theirs.name).read_bytes()
        if theirs.suffix == ".json":
            assert json.loads(ours) == json.loads(theirs.read_bytes())
        else:
            assert ours == theirs.read_bytes()
    assert len(list(out.iterdir())) == len(list((folder / one.name).iterdir()))


def test_a_shard_too_large_for_its_offsets_is_refused(sequences, tmp_path, monkeypatch):
    """Offsets are 32 bits wide."""
    path = tmp_path / "shard"
    part = samples.Part("shard", 0, 0, 3)
    with pytest.raises(UserError, match="larger than the 4 GB"):
        samples.write_indexed(path, part, b"", iter([[b"x"], [_Huge(), b"y"]]))


class _Huge(bytes):
    """Bytes that say that there are many."""

    def __len__(self) -> int:
        return (1 << 32) - 20
