"""litdata's chunks, read by its own StreamingDataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from litdata import StreamingDataLoader, StreamingDataset
from litdata.streaming.item_loader import PyTreeLoader, TokensLoader
from litdata.streaming.writer import BinaryWriter
from samples import assert_equal, told

from headrace.export import write
from headrace.formats.format import Options
from headrace.formats.sequences import SequenceExport

ROWS = 40


@pytest.fixture(scope="module")
def folders(sequences, tmp_path_factory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("litdata")
    steps = {
        name: SequenceExport(name, sequences, Options(rows_per_file=ROWS)) for name in ("litdata", "litdata-tokens")
    }
    return {name: write(step, out / name, workers=0) for name, step in steps.items()}


def test_litdata_reads_rows_in_order(folders, sequences):
    for one in sequences:
        dataset = StreamingDataset(str(folders["litdata"] / one.name), shuffle=False)
        read = [(item["input_ids"], item["loss_mask"], json.loads(item["segments"])) for item in dataset]
        assert_equal(read, one)
        assert (dataset[len(read) - 3]["input_ids"] == read[-3][0]).all()


def test_its_loader_makes_batches(folders, sequences):
    dataset = StreamingDataset(str(folders["litdata"] / sequences[0].name), shuffle=False)
    batch = next(iter(StreamingDataLoader(dataset, batch_size=4)))
    assert (batch["input_ids"].numpy() == sequences[0].open().rows(0, 4)).all()
    assert batch["loss_mask"].shape == (4, 65)


def test_tokens_loader_reads_rows_in_order(folders, sequences):
    for one in sequences:
        ours = one.open()
        loader = TokensLoader(block_size=ours.seq_len + 1)
        dataset = StreamingDataset(str(folders["litdata-tokens"] / one.name), item_loader=loader, shuffle=False)
        assert len(dataset) == len(ours)
        assert (np.stack(list(dataset)) == ours.rows(0, len(ours))).all()


def test_what_tokens_alone_leave_behind_is_told_once(sequences, tmp_path):
    heard = []
    write(
        SequenceExport("litdata-tokens", sequences[:1], Options()), tmp_path / "out", workers=0, listener=heard.append
    )
    [notice] = [event for event in heard if "left behind" in json.dumps(event)]
    assert "no loss, segments or provenance" in json.dumps(notice)


@pytest.mark.parametrize("format", ["litdata", "litdata-tokens"])
def test_bytes_are_those_of_their_writer(format, folders, sequences, tmp_path):
    one = sequences[1]
    width = one.open().seq_len + 1
    out = tmp_path / "theirs"
    tokens = format == "litdata-tokens"
    loader = TokensLoader(block_size=width) if tokens else PyTreeLoader()
    # Their writer counts tokens instead of items for TokensLoader.
    writer = BinaryWriter(str(out), chunk_size=ROWS * width if tokens else ROWS, item_loader=loader)
    for row, sample in enumerate(told(one)):
        segments = json.dumps(sample.segments, separators=(",", ":"))
        item = {"input_ids": sample.tokens, "loss_mask": sample.loss, "segments": segments}
        writer[row] = item["input_ids"] if tokens else item
    writer.done()
    writer.merge()
    ours, theirs = (json.loads((folder / "index.json").read_text()) for folder in (folders[format] / one.name, out))
    assert ours["chunks"] == theirs["chunks"]
    for name in ("compression", "data_format", "data_spec", "encryption", "item_loader"):
        assert ours["config"][name] == theirs["config"][name]
    for chunk in theirs["chunks"]:
        name = chunk["filename"]
        assert (folders[format] / one.name / name).read_bytes() == (out / name).read_bytes()
