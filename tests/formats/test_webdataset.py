"""Tar files, read by webdataset and by the standard library."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from samples import assert_equal

from headrace.export import write
from headrace.formats.format import Options
from headrace.formats.sequences import SequenceExport

ROWS = 40


@pytest.fixture(scope="module")
def folder(sequences, tmp_path_factory) -> Path:
    step = SequenceExport("webdataset", sequences, Options(rows_per_file=ROWS))
    return write(step, tmp_path_factory.mktemp("web") / "out", workers=0)


def test_webdataset_reads_rows_in_order(folder, sequences):
    for one in sequences:
        last = -(-len(one.open()) // ROWS) - 1
        urls = f"{folder}/{one.name}/shard-{{000000..{last:06d}}}.tar"
        dataset = webdataset.WebDataset(urls, shardshuffle=False).decode()
        rows = list(dataset)
        assert [int(row["__key__"]) for row in rows] == list(range(len(rows)))
        assert_equal([(row["input_ids.npy"], row["loss_mask.npy"], row["segments.json"]) for row in rows], one)


def test_bytes_are_those_of_the_standard_library(folder):
    for path in folder.rglob("*.tar"):
        out = io.BytesIO()
        with tarfile.open(path) as ours, tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as theirs:
            for member in ours:
                assert member.isreg()
                assert (member.mode, member.uid, member.gid, member.mtime) == (0o444, 0, 0, 0)
                theirs.addfile(member, ours.extractfile(member))
        assert path.read_bytes() == out.getvalue()
