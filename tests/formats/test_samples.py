"""Rows of sequences that know less of themselves than headrace's own."""

from __future__ import annotations

import json

from headrace.export import write
from headrace.flow.task import TaskContext
from headrace.formats.format import Options, Part
from headrace.formats.opening import open_files
from headrace.formats.samples import sample_blocks
from headrace.formats.sequences import SequenceExport


def segments(format, sequences, tmp_path) -> list:
    """Those of the samples of a sequence that went through a format and lost its manifest."""
    step = SequenceExport(format, sequences[1:2], Options())
    out = write(step, tmp_path / "out", workers=0)
    (out / "manifest.json").unlink()
    reader = open_files(out)
    ctx = TaskContext(tmp_path, step)
    [samples] = sample_blocks(ctx, reader, Part("", 0, 0, len(reader)))
    return [json.loads(sample.segments) for sample in samples]


def test_unknown_segments_are_null(sequences, tmp_path):
    assert set(map(repr, segments("hdf5", sequences, tmp_path))) == {"None"}


def test_of_unknown_documents_only_places_are_told(sequences, tmp_path):
    told = segments("hdf5-vsl", sequences, tmp_path)
    assert {tuple(segment) for row in told for segment in row} == {("start", "length", "kind")}
    assert {segment["kind"] for row in told for segment in row} == {"plain", "padding"}
    assert all(sum(segment["length"] for segment in row) == 65 for row in told)
