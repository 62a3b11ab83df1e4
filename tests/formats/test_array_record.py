"""ArrayRecord, read by the data source that grain uses."""

from __future__ import annotations

import io
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordReader
from samples import assert_equal

from headrace.errors import UserError
from headrace.export import write
from headrace.flow.artifact import Artifact
from headrace.formats.format import Options
from headrace.formats.sequences import SequenceExport


@pytest.fixture(scope="module")
def folder(sequences, tmp_path_factory) -> Path:
    step = SequenceExport("array_record", sequences, Options(rows_per_file=40))
    return write(step, tmp_path_factory.mktemp("array") / "out", workers=0)


def decoded(record: bytes) -> tuple[np.ndarray, np.ndarray, list]:
    file = io.BytesIO(record)
    return np.load(file), np.load(file), json.loads(file.read())


def test_the_data_source_reads_rows_in_order(folder, sequences):
    for one in sequences:
        with ArrayRecordDataSource([str(path) for path in sorted((folder / one.name).iterdir())]) as source:
            records = list(source)
            assert_equal(map(decoded, records), one)
            some = random.Random(1).sample(range(len(records)), 20)
            assert source.__getitems__(some) == [records[row] for row in some]


def test_a_group_is_one_record(folder, sequences):
    for path in folder.rglob("*.array_record"):
        assert "group_size:1," in ArrayRecordReader(str(path)).writer_options_string()


def test_the_library_is_told(folder):
    assert set(Artifact.open(folder).manifest.extra["made_with"]) == {"array_record"}


def test_without_the_library_nothing_is_begun(sequences, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "array_record.python", None)
    with pytest.raises(UserError, match="needs array_record"):
        write(SequenceExport("array_record", sequences, Options()), tmp_path / "out", workers=0)
    assert not list(tmp_path.iterdir())
