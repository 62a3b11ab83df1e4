"""What holds for every format of sequences, whatever its files look like."""

from __future__ import annotations

import gc
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from exporting import contents, killed_at

from headrace.errors import UserError
from headrace.export import request, requested, write
from headrace.flow.artifact import Artifact
from headrace.formats.format import Options, ReadableFormat
from headrace.formats.opening import open_files
from headrace.formats.registry import SEQUENCES
from headrace.formats.sequences import SequenceExport
from headrace.sequence.loader import Loader
from quick import quick

READABLE = [name for name, format in SEQUENCES.items() if isinstance(format, ReadableFormat)]
SMALL = Options(rows_per_file=40)


@pytest.mark.parametrize("format", quick(SEQUENCES, "hdf5", "arrow", "hub"))
def test_bytes_do_not_depend_on_workers_or_kills(format, sequences, tmp_path):
    step = SequenceExport(format, sequences, SMALL)
    alone = contents(write(step, tmp_path / "alone", workers=0))
    assert contents(write(step, tmp_path / "two", workers=2)) == alone
    out, renames = tmp_path / "killed", 1
    while killed_at(renames, lambda: write(step, out, workers=0)):
        assert not out.exists()
        renames *= 3
    assert renames > 3
    assert contents(out) == alone
    assert not (tmp_path / "killed.partial").exists()


# Of Arrow and Parquet, the groups that were decoded last are kept, with their file.
@pytest.mark.parametrize("format", [name for name in READABLE if name not in ("arrow", "hub")])
def test_a_reader_that_is_forgotten_lets_go_of_its_files(format, sequences, tmp_path):
    out = write(SequenceExport(format, sequences[:1], SMALL), tmp_path / "out", workers=0)
    reader = open_files(out, sequences[0].name)
    reader.rows(0, len(reader))
    reader.itself = reader  # as in a cycle, which the collector ends
    del reader
    gc.collect()
    assert not [path for path in Path("/proc/self/fd").iterdir() if str(out) in str(path.resolve())]


@pytest.mark.parametrize("format", READABLE)
def test_what_is_read_back_is_what_was_written(format, sequences, tmp_path):
    out = write(SequenceExport(format, sequences, SMALL), tmp_path / "out", workers=0)
    keeps = SEQUENCES[format].keeps
    for one in sequences:
        ours, theirs = one.open(), open_files(out, one.name).verified()
        n = len(ours)
        assert len(theirs) == n
        assert theirs.fingerprint == ours.fingerprint
        assert theirs.dtype == ours.dtype
        assert (theirs.rows(0, n) == ours.rows(0, n)).all()
        assert (theirs.rows(n // 3, n // 2) == ours.rows(n // 3, n // 2)).all()
        if "segments" in keeps:
            assert all((theirs.segments(row) == ours.segments(row)).all() for row in range(n))
        if "loss" in keeps:
            for a, b in zip(Loader(ours, 7), Loader(theirs, 7, verify=True), strict=True):
                assert (a.loss == b.loss).all()
        halfway = Loader(ours, 8, start=16).state_dict()
        assert Loader(theirs, 8, state=halfway).consumed == 16
        again = pickle.loads(pickle.dumps(theirs))
        assert (again.rows(5, 9) == ours.rows(5, 9)).all()


@pytest.mark.parametrize("format", READABLE)
def test_files_are_opened_without_our_manifest(format, sequences, tmp_path):
    out = write(SequenceExport(format, sequences[1:2], SMALL), tmp_path / "out", workers=0)
    (out / "manifest.json").unlink()
    ours, theirs = sequences[1].open(), open_files(out, seq_len=sequences[1].open().seq_len)
    assert (theirs.rows(0, len(theirs)) == ours.rows(0, len(ours))).all()
    assert theirs.fingerprint is None
    state = Loader(theirs, 8, start=8).state_dict()
    assert Loader(theirs, 8, state=state).consumed == 8
    with pytest.raises(UserError, match="only one of the two has a fingerprint"):
        Loader(ours, 8, state=state)
    with pytest.raises(UserError, match="without digests"):
        theirs.verified()


@pytest.mark.parametrize("format", READABLE)
def test_damaged_files_are_named(format, sequences, tmp_path):
    """Cut anywhere, or changed anywhere, a file gives one clear error or the rows it had: never a crash."""
    out = write(SequenceExport(format, sequences[1:2], SMALL), tmp_path / "out", workers=0)
    names = [entry["name"] for entry in Artifact.open(out).entries]
    whole = contents(out)
    rng = np.random.default_rng(1)
    (out / "manifest.json").unlink()
    said = []
    for case in range(60):
        name = names[int(rng.integers(len(names)))]
        data = bytearray(whole[name])
        if case % 2:
            data = data[: int(rng.integers(len(data)))]
        else:
            for at in rng.integers(0, len(data), 8):
                data[at] = int(rng.integers(256))
        (out / name).write_bytes(data)
        try:
            reader = open_files(out, seq_len=64)
            for start, stop in reader.ranges():
                reader.rows(start, stop), reader.targets(start, stop), reader.segments_in(start, stop)
        except UserError as error:
            said.append(error)
        (out / name).write_bytes(whole[name])
    assert said
    assert all(str(out) in error.where for error in said)


@pytest.mark.parametrize("format", READABLE)
def test_a_flipped_bit_is_seen_by_whoever_verifies(format, sequences, tmp_path):
    out = write(SequenceExport(format, sequences[1:2], SMALL), tmp_path / "out", workers=0)
    victim = out / Artifact.open(out).manifest.extra["sequences"][0]["parts"][1]["file"]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    reader = open_files(out).verified()
    reader.rows(0, 40)
    with pytest.raises(UserError, match="damaged"):
        reader.rows(40, 80)


def test_a_folder_that_holds_something_else_is_left_alone(sequences, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        write(SequenceExport("hdf5", sequences, SMALL), out, workers=0)
    assert contents(out) == {"mine.txt": b"precious"}


def test_the_same_export_again_does_nothing_and_another_is_refused(sequences, tmp_path):
    step = SequenceExport("hdf5", sequences[:1], SMALL)
    out = write(step, tmp_path / "out", workers=0)
    heard: list[dict] = []
    write(step, out, workers=0, listener=heard.append)
    assert not heard
    with pytest.raises(UserError, match="another export"):
        write(SequenceExport("hdf5", sequences[1:2], SMALL), out, workers=0)


def test_several_sequences_are_told_apart_by_name(sequences, tmp_path):
    out = write(SequenceExport("hdf5", sequences, SMALL), tmp_path / "out", workers=0)
    with pytest.raises(UserError, match="several sequences"):
        open_files(out)
    with pytest.raises(UserError, match="no sequence 'tow'"):
        open_files(out, "tow")


def test_workers_build_the_step_from_the_request(sequences):
    step = SequenceExport("hdf5", sequences, SMALL)
    assert requested(json.loads(json.dumps(request(step)))).identity == step.identity
