"""A run's documents and sequences as tables of other libraries: the same rows, and nothing copied."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import datasets
import numpy as np
import polars
import pyarrow as pa
import pytest

import headrace
from headrace.errors import UserError
from headrace.sequence import layout
from headrace.sequence.store import ArrowSequence

sys.path.insert(0, str(Path(__file__).parent / "report"))
sys.path.insert(0, str(Path(__file__).parent / "sequence"))

import small_build
import small_pipeline


@pytest.fixture(scope="module")
def run(once, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_pipeline.copied(once, tmp_path_factory.mktemp("tables") / "corpus")


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> ArrowSequence:
    """Some 300 rows in several small shards, with masks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 20_000)
        config = small_build.stage(sources={"a": {"slice": [0, 0.5]}, "chat": {}}, chat="chatml")
        made = small_build.build(tmp_path_factory.mktemp("run"), small_build.of_stage(config))
    assert len(made.artifact.shards) > 3
    return made


def addresses(table: pa.Table) -> set[int]:
    return {b.address for c in table.columns for chunk in c.chunks for b in chunk.buffers() if b is not None and b.size}


def mapped_ranges(path: Path) -> list[tuple[int, int]]:
    """Where files below a folder are mapped in this process."""
    out = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(path) in line:
            low, high = line.split()[0].split("-")
            out.append((int(low, 16), int(high, 16)))
    return out


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_dataset_lies_in_the_mapped_files(sequence: ArrowSequence) -> None:
    dataset = headrace.to_dataset(sequence.path)
    part = dataset.select(range(3, len(dataset) - 2))
    again = pickle.loads(pickle.dumps(part))
    for one in (dataset, part, again):
        ranges = mapped_ranges(sequence.path)
        assert all(any(low <= at < high for low, high in ranges) for at in addresses(one.data.table))
    assert len(pickle.dumps(dataset)) < 5_000


def test_a_dataset_has_the_rows_of_the_sequence(run: Path, sequence: ArrowSequence) -> None:
    of_run = headrace.to_dataset(run, "second")
    assert of_run["tokens"][3] == headrace.open_sequence(run, "second").rows(3, 4)[0].tolist()
    dataset = headrace.to_dataset(sequence.path)
    assert isinstance(dataset, datasets.Dataset)
    assert len(dataset) == len(sequence) > 10
    assert dataset.split == "one"
    assert np.array(dataset["tokens"]).tolist() == sequence.rows(0, len(sequence)).tolist()
    for row in (0, 7, len(sequence) - 1):
        told = [tuple(segment.values()) for segment in dataset[row]["segments"]]
        assert told == [tuple(segment.item()) for segment in sequence.segments(row)]
    assert dataset.with_format("numpy")[4]["tokens"].tolist() == sequence.rows(4, 5)[0].tolist()
    sums = dataset.map(lambda row: {"sum": sum(row["tokens"])}, num_proc=2, remove_columns=["segments", "loss"])
    assert sums["sum"][:] == sequence.rows(0, len(sequence)).astype(int).sum(axis=1).tolist()
    shuffled = dataset.shuffle(seed=1)
    assert sorted(map(tuple, shuffled["tokens"])) == sorted(map(tuple, dataset["tokens"]))
    assert sorted(path.suffix for path in sequence.path.iterdir() if path.suffix != ".arrow") == [".json"]


def test_rows_as_arrow(sequence: ArrowSequence) -> None:
    for start, stop in ((0, None), (3, 9), (5, 5)):
        end = len(sequence) if stop is None else stop
        table = sequence.to_arrow(start, stop)
        assert table.column("tokens").to_pylist() == sequence.rows(start, end).tolist()
        # A reader of another format has what every reader has.
        generic = super(ArrowSequence, sequence).to_arrow(start, stop)
        assert generic.column("tokens").to_pylist() == table.column("tokens").to_pylist()
        assert generic.column("segments").to_pylist() == table.column("segments").to_pylist()
        assert generic.column("loss").to_pylist() == sequence.loss(start, end).tolist()
    with pytest.raises(IndexError):
        sequence.to_arrow(0, len(sequence) + 1)


@pytest.mark.parametrize("removed", [False, True])
def test_documents_as_tables(run: Path, removed: bool) -> None:
    documents = headrace.open_documents(run, removed=removed)
    table = documents.to_arrow()
    assert len(table) == len(documents)
    assert {"id", "text", "keep", "reason", "split"} <= set(table.column_names)
    assert (table.column("keep").to_pylist().count(False) > 0) == removed
    if not removed:
        everything = headrace.open_documents(run, removed=True)
        kept = [row for row in everything.to_arrow().to_pylist() if row["keep"]]
        assert table.to_pylist() == kept
    assert documents.to_polars().rows() == polars.from_arrow(table).rows()
    assert documents.scan().collect().rows() == documents.to_polars().rows()
    assert documents.to_pandas()["id"].tolist() == table.column("id").to_pylist()
    assert documents.to_arrow(["reason", "id"]).column_names == ["reason", "id"]
    assert len(documents.to_arrow(["split"])) == len(documents)
    assert sum(batch.num_rows for batch in documents.batches(["text"])) == len(documents)
    with pytest.raises(UserError, match="no column 'licence'"):
        documents.to_arrow(["licence"])
