"""Exports whose rows lie in a folder for each source, and are read in the order of the sequence again."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_build import build, of_stage
from test_sequence_formats import contents, killed_at

from headrace.errors import UserError
from headrace.export import write
from headrace.formats import order as order_module
from headrace.formats.format import Exported
from headrace.formats.layout import file_in, folders
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.order import DTYPE, Order
from headrace.formats.sequences import SequenceExport
from headrace.recipe.stages import Stage
from headrace.sequence import layout
from headrace.sequence.loader import Loader
from headrace.sequence.windows import PADDING
from quick import examples

APART = {
    "name": "apart",
    "sequence_length": 64,
    "sources": {"a": {"epochs": 2, "fim": {"rate": 0.5}}, "b": {}, "chat": {}},
    "pack": {"mix_sources": False, "method": "best_fit"},
    "chat": "chatml",
}
SMALL = Options(rows_per_file=40)
FOLDERS = (("a", "phase2/A_train_packed_part1of2"), ("b", "phase2/B"), ("chat", "phase2/B"))


@pytest.fixture(scope="module")
def apart(tmp_path_factory) -> Exported:
    """A stage whose rows have one source each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 20_000)
        made = build(tmp_path_factory.mktemp("apart"), of_stage(Stage.model_validate(APART)))
    return Exported("apart", str(made.path), made.artifact.manifest.identity)


@pytest.fixture(scope="module")
def out(apart, tmp_path_factory) -> Path:
    step = SequenceExport("hdf5", (replace(apart, folders=FOLDERS),), SMALL)
    return write(step, tmp_path_factory.mktemp("out") / "out", workers=2)


def test_the_batches_are_those_of_the_run(apart, out):
    ours, theirs = apart.open(), open_files(out).verified()
    assert theirs.fingerprint == ours.fingerprint
    for positions in ("row", "document"):
        pairs = zip(Loader(ours, 7, positions=positions), Loader(theirs, 7, positions=positions), strict=True)
        assert all((mine == yours).all() for a, b in pairs for mine, yours in zip(a, b, strict=True))
    rng = np.random.default_rng(3)
    for _ in range(50):
        start, stop = sorted(rng.integers(0, len(ours) + 1, 2))
        assert (ours.rows(start, stop) == theirs.rows(start, stop)).all()
        mine, yours = ours.segments_in(start, stop), theirs.segments_in(start, stop)
        assert (np.diff(mine.bounds) == np.diff(yours.bounds)).all()
        assert (mine.records() == yours.records()).all()
    again = pickle.loads(pickle.dumps(theirs))
    assert (again.rows(5, 50) == ours.rows(5, 50)).all()
    assert [row for low, high in theirs.ranges() for row in range(low, high)] == list(range(len(ours)))


def test_each_folder_has_the_rows_of_its_sources_in_order(apart, out):
    ours = apart.open()
    records = ours.segments_in(0, len(ours))
    source = [next(int(s["source"]) for s in records.of(row) if s["kind"] != PADDING) for row in range(len(ours))]
    for folder in dict.fromkeys(folder for _, folder in FOLDERS):
        mine = [ours.sources.index(name) for name, of in FOLDERS if of == folder]
        rows = [row for row in range(len(ours)) if source[row] in mine]
        files = sorted((out / folder).iterdir())
        ids = np.concatenate([h5py.File(file)["data"][:, 0] for file in files])
        assert (ids == np.stack([ours.rows(row, row + 1)[0, :-1] for row in rows])).all()
        assert len(open_files(out / folder)) == len(rows)
    names = [file.name for file in sorted((out / FOLDERS[0][1]).iterdir())]
    assert names[:2] == ["data-00001.h5", "data-00003.h5"], "as the second of CrystalCoder's halves"


def test_bytes_do_not_depend_on_workers_or_kills(apart, out, tmp_path):
    step = SequenceExport("hdf5", (replace(apart, folders=FOLDERS),), SMALL)
    killed, renames = tmp_path / "killed", 1
    while killed_at(renames, lambda: write(step, killed, workers=0)):
        renames *= 3
    assert renames > 3
    assert contents(killed) == contents(out)


def test_another_layout_is_another_export(apart, out, tmp_path):
    plain = SequenceExport("hdf5", (apart,), SMALL)
    assert plain.identity != SequenceExport("hdf5", (replace(apart, folders=FOLDERS),), SMALL).identity
    step = SequenceExport("hdf5-vsl", (replace(apart, folders=folders("sources", "apart", apart.open())),), SMALL)
    write(step, tmp_path / "vsl", workers=0)
    assert {path.name for path in (tmp_path / "vsl" / "apart").iterdir()} == {"a", "b", "chat"}
    again = open_files(tmp_path / "vsl")
    assert (again.rows(0, len(again)) == apart.open().rows(0, len(again))).all()


def test_rows_of_several_folders_are_refused(sequences, apart, tmp_path):
    one = replace(sequences[1], folders=(("a", "x"), ("b", "y")))
    with pytest.raises(UserError, match="different folders") as error:
        write(SequenceExport("hdf5", (one,), SMALL), tmp_path / "out", workers=0)
    assert "mix_sources: false" in error.value.fix
    write(
        SequenceExport("hdf5", (replace(one, folders=(("a", "x"), ("b", "x"))),), SMALL), tmp_path / "same", workers=0
    )
    with pytest.raises(UserError, match="no folder for a source of row"):
        write(SequenceExport("hdf5", (replace(apart, folders=(("a", "x"),)),), SMALL), tmp_path / "left", workers=0)


def test_other_formats_have_no_folders(apart, tmp_path):
    with pytest.raises(UserError, match="olmo-core has no folders"):
        write(SequenceExport("olmo-core", (replace(apart, folders=FOLDERS),), SMALL), tmp_path / "out", workers=0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("other: {a: x}", "no stage 'apart'"),
        ("apart: [a]", "no stage 'apart'"),
        ("apart: {a: x, b: y}", "no folder for 'chat'"),
        ("apart: {a: x, b: y, chat: z, chut: z}", "no source 'chut'"),
        ("apart: {a: /x, b: y, chat: z}", "no folder below"),
        ("apart: {a: x/../../y, b: y, chat: z}", "no folder below"),
        ("apart: {a: '', b: y, chat: z}", "no folder below"),
        ("apart: {a: 3, b: y, chat: z}", "no folder below"),
        ("apart: {a: manifest.json, b: y, chat: z}", "no folder below"),
        ("[1]", "not a mapping"),
        ("{", "not valid YAML"),
    ],
)
def test_layouts_that_make_no_sense_are_told(apart, tmp_path, text, words):
    path = tmp_path / "layout.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        folders(str(path), "apart", apart.open())
    path.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        folders(str(path), "apart", apart.open())


@pytest.mark.parametrize("harm", ["cut", "gone", "beyond", "swapped"])
def test_a_damaged_order_is_told(apart, out, tmp_path, harm):
    folder = tmp_path / "copy"
    for name, held in contents(out).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(held)
    path = folder / "apart.order.u16"
    order = np.fromfile(path, dtype=DTYPE)
    if harm == "cut":
        path.write_bytes(path.read_bytes()[:-6])
    elif harm == "gone":
        path.unlink()
    else:
        at = (0, 1) if harm == "beyond" else (np.flatnonzero(order == 0)[0], np.flatnonzero(order == 1)[0])
        order[at[0]], order[at[1]] = (7, 7) if harm == "beyond" else (1, 0)
        order.tofile(path)
    with pytest.raises(UserError, match="order of the rows"):
        open_files(folder).verified().rows(0, 10)


@settings(max_examples=examples(100))
@given(st.lists(st.integers(0, 3), max_size=60), st.data())
def test_order_finds_rows(tmp_path_factory, numbers, data):
    path = tmp_path_factory.mktemp("order") / "order"
    np.array(numbers, dtype=DTYPE).tofile(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "BLOCK", 8)
        order = Order(path, 4)
        assert order.counts == [numbers.count(folder) for folder in range(4)]
        start = data.draw(st.integers(0, len(numbers)))
        stop = data.draw(st.integers(start, len(numbers)))
        seen = np.full(stop - start, -1)
        for folder, first, at in order.split(start, stop):
            assert first == numbers[:start].count(folder)
            seen[at] = folder
        assert seen.tolist() == numbers[start:stop]
        for folder in range(4):
            rows = [row for row, number in enumerate(numbers) if number == folder]
            first = data.draw(st.integers(0, len(rows)))
            last = data.draw(st.integers(first, len(rows)))
            assert order.rows(folder, first, last).tolist() == rows[first:last]


def test_files_of_parts_are_numbered_as_they_were_dealt_out():
    assert [file_in("A_train_packed_part0of2", n, ".h5")[-13:] for n in range(2)] == ["data-00000.h5", "data-00002.h5"]
    assert [file_in("x/A_part2of3", n, ".h5")[-13:] for n in range(2)] == ["data-00002.h5", "data-00005.h5"]
    assert file_in("A_part3of2", 1, ".h5") == "A_part3of2/data-00001.h5"
