"""Cerebras HDF5 as others write it, and as it may be made to harm."""

from __future__ import annotations

import os
import subprocess
import sys
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest

from headrace.errors import UserError
from headrace.export import write
from headrace.flow.notices import Notice
from headrace.formats.hdf5_layout import describe
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.sequences import SequenceExport
from headrace.sequence.loader import Loader

L = 32
RNG = np.random.default_rng(7)


def rows(n: int, length: int = L, vocab: int = 500) -> np.ndarray:
    """[n, length + 1] ids."""
    return RNG.integers(0, vocab, (n, length + 1))


def sample(tokens: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """What the Model Zoo's preprocessor stacks: ids, loss mask, labels."""
    mask = np.ones_like(tokens[:, 1:]) if mask is None else mask
    return np.stack([tokens[:, :-1], mask, tokens[:, 1:]], axis=1)


def save(path: Path, data: np.ndarray, n_examples: bool = True, **layout: object) -> Path:
    """A file as h5py writes it, by the layout of ``hdf5_base_preprocessor.py`` unless told otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    usual = {"dtype": "i4", "compression": "gzip", "chunks": (1, *data.shape[1:]) if data.ndim == 3 else True}
    with h5py.File(path, "w") as file:
        if n_examples:
            file.attrs["n_examples"] = len(data)
        file.create_dataset("data", data=data, **{**usual, **layout})
    return path


@pytest.mark.parametrize("n_examples", [True, False])
def test_the_published_layout_is_one_sequence_in_order(tmp_path, n_examples):
    """Folders of the stage's half: files with odd numbers only, as CrystalCoder's second half of SlimPajama has."""
    expected = []
    for source in ("ArXiv", "Book", "Wikipedia"):
        for number in (1, 3, 11):
            tokens = rows(int(RNG.integers(1, 9)))
            name = f"phase2/SlimPajama/{source}_train_packed_part1of2/data-{number:05d}.h5"
            save(tmp_path / name, sample(tokens), n_examples)
            expected.append(tokens)
    sequence = open_files(tmp_path / "phase2")
    expected_rows = np.concatenate(expected)
    assert (len(sequence), sequence.seq_len) == (len(expected_rows), L)
    assert (sequence.rows(0, len(sequence)) == expected_rows).all()
    assert (sequence.rows(3, 11) == expected_rows[3:11]).all()
    assert sequence.fingerprint is None
    assert sequence.vocab_size is None
    assert sequence.segments(0) is None


@pytest.mark.parametrize(
    "layout",
    [
        {"dtype": "u2"},
        {"dtype": "i8"},
        {"dtype": ">i4"},
        {"chunks": (4, 2, 10)},
        {"chunks": (7, 3, L), "shuffle": True, "fletcher32": True},
        {"chunks": (1, 3, L), "compression": None, "fletcher32": True},
        {"chunks": None, "compression": None},
        {"maxshape": (None, 3, L), "chunks": (2, 3, L)},
    ],
    ids=str,
)
def test_rows_are_read_however_they_are_stored(tmp_path, layout):
    tokens, mask = rows(23), RNG.integers(0, 2, (23, L))
    path = save(tmp_path / "a.h5", sample(tokens, mask), **layout)
    for versions in ("earliest", "latest"):
        with h5py.File(path) as old, h5py.File(tmp_path / "b.h5", "w", libver=versions, userblock_size=512) as new:
            old.copy("data", new)
        sequence = open_files(tmp_path / "b.h5")
        for start, stop in ((0, 23), (5, 18), (22, 23), (4, 4)):
            assert (sequence.rows(start, stop) == tokens[start:stop]).all()
            assert (sequence.targets(start, stop) == mask[start:stop]).all()


@pytest.mark.parametrize("n", [23.0, np.array([23]), np.uint8(23)])
def test_the_number_of_rows_may_be_of_any_type(tmp_path, n):
    path = save(tmp_path / "a.h5", sample(rows(23)), n_examples=False)
    with h5py.File(path, "a") as file:
        file.attrs["n_examples"] = n
    assert len(open_files(path)) == 23


@pytest.mark.parametrize("swmr", [True, False])
def test_a_file_that_is_being_written_is_not_called_damaged(tmp_path, swmr):
    path = save(tmp_path / "a.h5", sample(rows(3)), maxshape=(None, 3, L))
    with h5py.File(tmp_path / "b.h5", "w", libver="latest") as file, h5py.File(path) as whole:
        whole.copy("data", file)
        file.flush()
        if swmr:
            file.swmr_mode = True
        with pytest.raises(UserError, match="another program is writing it"):
            open_files(tmp_path / "b.h5")
    assert len(open_files(tmp_path / "b.h5")) == 3


def test_the_corpus_kind_is_cut_at_run_time(tmp_path):
    line = RNG.integers(0, 500, 103)
    path = save(tmp_path / "corpus.h5", line, n_examples=False)
    with pytest.raises(UserError, match="how long a sequence is"):
        open_files(path)
    sequence = open_files(path, seq_len=10)
    assert len(sequence) == 10
    assert (sequence.rows(0, 10) == [line[i * 10 : i * 10 + 11] for i in range(10)]).all()
    assert sequence.targets(0, 10).all()


def variable(documents: list[list[np.ndarray]]) -> np.ndarray:
    """Rows of documents as the Model Zoo's VSL preprocessor lays them out, padded with 0."""
    out = np.zeros((len(documents), 5, L), dtype=np.int32)
    for row, inside in zip(out, documents, strict=True):
        at = 0
        for document in inside:
            n = len(document) - 1
            row[:, at : at + n] = [document[:-1], np.ones(n), document[1:], np.arange(n)[::-1], np.arange(n)]
            at += n
    return out


def test_five_lines_tell_where_documents_begin(tmp_path):
    one, two, three = (RNG.integers(3, 500, n) for n in (9, 21, 12))
    path = save(tmp_path / "vsl.h5", variable([[one, two], [three]]))
    loader = Loader(open_files(path), 2, positions="document")
    batch = loader.at(0)
    with pytest.warns(Notice, match="last label"):
        batch.described()
    assert batch.segment_ids[0].tolist() == [1] * 8 + [2] * 20 + [0] * 4
    assert batch.segment_ids[1].tolist() == [1] * 11 + [0] * 21
    assert batch.positions[0, :28].tolist() == [*range(8), *range(20)]
    assert batch.loss[1].tolist() == [True] * 10 + [False] * 22  # its last label is not the padding that follows
    assert (batch.tokens[0, :8] == one[:-1]).all()


def test_what_we_write_is_theirs(sequences, tmp_path):
    """Read with h5py alone, by the description of the Model Zoo's readers."""
    out = write(SequenceExport("hdf5-vsl", sequences, Options(rows_per_file=40)), tmp_path / "out", workers=0)
    for one in sequences:
        ours, at = one.open(), 0
        for path in sorted((out / one.name).glob("*.h5")):
            with h5py.File(path) as file:
                data = file["data"]
                assert (data.dtype, data.compression, data.chunks) == (np.int32, "gzip", (1, 5, ours.seq_len))
                n = file.attrs["n_examples"]
                assert n == len(data)
                block = data[:]
            batch = Loader(ours, 1, positions="document").at(at) if n == 0 else None
            assert batch is None
            tokens = ours.rows(at, at + n)
            assert (block[:, 0] == tokens[:, :-1]).all()
            assert (block[:, 2] == tokens[:, 1:]).all()
            expected = Loader(ours, int(n), start=at, positions="document").at(at)
            assert (block[:, 1] == expected.loss).all()
            used = expected.segment_ids > 0
            assert (block[:, 4] == expected.positions * used).all()
            # A position is attended to by as many later ones as its segment has.
            later = (expected.segment_ids[:, :, None] == expected.segment_ids[:, None, :]) & used[:, :, None]
            assert (block[:, 3] == np.triu(later, 1).sum(axis=2)).all()
            at += n
        assert at == len(ours)


def test_segments_survive_without_our_manifest_in_five_lines(sequences, tmp_path):
    out = write(SequenceExport("hdf5-vsl", sequences[:1], Options()), tmp_path / "out", workers=0)
    (out / "manifest.json").unlink()
    ours, theirs = sequences[0].open(), open_files(out)
    n = len(ours)
    a, b = (Loader(one, n, positions="document").at(0) for one in (ours, theirs))
    # A document of one token at a row's end, without loss, looks like padding.
    assert ((a.segment_ids == b.segment_ids) | ((b.segment_ids == 0) & (a.positions == 0) & ~a.loss)).all()
    assert (a.positions * (a.segment_ids > 0) == b.positions * (b.segment_ids > 0)).all()
    assert (a.loss == b.loss).all()


def wrong_rows() -> dict[str, tuple[np.ndarray, str]]:
    """Files with something wrong in row 5."""
    tokens = rows(8)
    shifted, negative, mask = sample(tokens), sample(tokens), sample(tokens)
    shifted[5, 2, 3] += 1
    negative[5, 0, 4] = -1
    mask[5, 1, 7] = 7
    return {
        "labels that are not shifted": (shifted, "Row 5 has label .* at position 3"),
        "a negative id": (negative, "Row 5 has token id -1, which is negative"),
        "a mask that is none": (mask, "row 5 has 7 at position 7 of its loss mask"),
    }


@pytest.mark.parametrize("what", wrong_rows())
def test_a_wrong_row_is_named(tmp_path, what):
    data, message = wrong_rows()[what]
    path = save(tmp_path / "a.h5", data)
    sequence = open_files(path)
    sequence.rows(0, 5), sequence.targets(0, 5)
    with pytest.raises(UserError, match=message) as error:
        sequence.rows(0, 8), sequence.targets(0, 8)
    assert str(path) in error.value.where


def hostile(folder: Path) -> dict[str, Path]:
    """Files that lead elsewhere, promise what they have not, or need code."""
    data = sample(rows(4)).astype("i4")
    secret = save(folder / "elsewhere" / "secret.h5", data)
    found = {}

    def new(name: str) -> h5py.File:
        found[name] = folder / f"{name}.h5"
        return h5py.File(found[name], "w")

    with new("external link") as file:
        file["data"] = h5py.ExternalLink(str(secret), "/data")
    with new("soft link") as file:
        file["data"] = h5py.SoftLink("/data")
    with new("group") as file:
        file.create_group("data")
    with new("virtual") as file:
        layout = h5py.VirtualLayout((4, 3, L), "i4")
        layout[:] = h5py.VirtualSource(str(secret), "data", (4, 3, L))
        file.create_virtual_dataset("data", layout)
    (folder / "raw.bin").write_bytes(data.tobytes())
    with new("external storage") as file:
        file.create_dataset("data", data.shape, "i4", external=[(str(folder / "raw.bin"), 0, data.nbytes)])
    with new("unknown filter") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 3, L))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # Zstandard, a plugin
        h5py.h5d.create(file.id, b"data", h5py.h5t.STD_I32LE, h5py.h5s.create_simple(data.shape), plist)
    with new("unallocated") as file:
        file.create_dataset("data", (1 << 40, 3, L), "i4", chunks=(1, 3, L), compression="gzip")
    with new("contiguous, never written") as file:
        file.create_dataset("data", (1 << 40, 3, L), "i4")
    with new("huge chunk") as file:
        made = file.create_dataset("data", (1 << 20, 3, L), "i4", chunks=(1 << 20, 3, L), compression="gzip")
        made.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1 << 20)))
    with new("bomb") as file:
        made = file.create_dataset("data", (1, 3, L), "i4", chunks=(1, 3, L), compression="gzip")
        made.id.write_direct_chunk((0, 0, 0), zlib.compress(bytes(1 << 20)))
    with new("floats") as file:
        file["data"] = data.astype("f4")
    with new("booleans") as file:
        file["data"] = data.astype(bool)
    with new("four lines") as file:
        file["data"] = np.zeros((2, 4, L), "i4")
    with new("a number") as file:
        file["data"] = 5
    with new("nothing") as file:
        file["other"] = data
    with new("another count") as file:
        file["data"] = data
        file.attrs["n_examples"] = 9
    with new("a count that is text") as file:
        file["data"] = data
        file.attrs["n_examples"] = "many"
    found["a pipe"] = folder / "pipe.h5"
    os.mkfifo(found["a pipe"])
    found["empty"] = folder / "empty.h5"
    found["empty"].touch()
    found["a link to nothing"] = folder / "nowhere.h5"
    found["a link to nothing"].symlink_to(folder / "gone")
    return found


def test_hostile_files_are_refused_by_name(tmp_path):
    for what, path in hostile(tmp_path).items():
        folder = path.parent / what
        folder.mkdir()
        path.rename(folder / "data.h5")
        with pytest.raises(UserError, match="This HDF5 file is not read") as error:
            open_files(folder).rows(0, 1)
        assert error.value.where == str(folder / "data.h5"), what


def test_a_thousand_mutants_end_in_rows_or_errors(tmp_path):
    """Their structures are changed, of the old kind and the new: the library may die of it, this process never."""
    data = sample(rows(30))
    said = set()
    for versions in ("earliest", "latest"):
        with h5py.File(tmp_path / "whole.h5", "w", libver=versions) as file:
            file.create_dataset("data", data=data, dtype="i4", chunks=(1, 3, L), compression="gzip")
        whole = (tmp_path / "whole.h5").read_bytes()
        for case in range(500):
            mutant = bytearray(whole)
            for at in RNG.integers(0, len(whole) if case % 2 else 3000, 1 + case % 5):
                mutant[at] = int(RNG.choice([0, 1, 0x7F, 0xFF, int(RNG.integers(256))]))
            path = tmp_path / "mutant.h5"
            path.write_bytes(mutant[: int(RNG.integers(len(mutant)))] if case % 10 == 9 else mutant)
            try:
                sequence = open_files(path)
                if len(sequence) <= len(data):
                    sequence.rows(0, len(sequence)), sequence.targets(0, len(sequence))
            except UserError as error:
                said.add(error.where)
    assert said == {str(path)}


def test_the_library_that_ends_is_started_again(tmp_path, monkeypatch):
    path = save(tmp_path / "a.h5", sample(rows(3)))
    describe([path], ["data"], index=True)
    from headrace.formats import hdf5_layout

    process = hdf5_layout._library._process
    assert process is not None
    process._process.kill()
    process._process.wait()
    assert describe([path], ["data"], index=True)[0].arrays["data"].shape == (3, 3, L)


def test_reading_imports_no_h5py(tmp_path):
    """A plugin that h5py was told to load elsewhere in this process is of no use to a hostile file."""
    path = save(tmp_path / "a.h5", sample(rows(3)))
    code = (
        "import sys; from headrace.formats.opening import open_files\n"
        f"assert open_files({str(path)!r}).rows(0, 3).shape == (3, {L + 1}); assert 'h5py' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_group_of_ours_that_lies_is_an_error(sequences, tmp_path):
    """Somebody changed the segments and did not verify: they are checked before kernels trust them."""
    out = write(SequenceExport("hdf5", sequences[:1], Options()), tmp_path / "out", workers=0)
    path = out / "one" / "data-00000.h5"
    whole = path.read_bytes()
    for name, value in (("start", -5), ("length", 1 << 30), ("kind", 77), ("source", 9), ("bounds", 1 << 40)):
        with h5py.File(path, "r+") as file:
            file[f"headrace/{name}"][2] = value
        sequence = open_files(out)
        with pytest.raises(UserError, match="damaged"):
            Loader(sequence, len(sequence)).at(0).described()
        path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        del file["headrace/row"]
    with pytest.raises(UserError, match="'headrace' is damaged"):
        open_files(out).rows(0, 1)
