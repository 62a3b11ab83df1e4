"""What can be done with a sequence that lies in somebody else's files: batches, replay, export."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import datasets
import numpy as np
import pytest
from test_hdf5 import RNG, L, rows, sample, save, variable
from typer.testing import CliRunner

import headrace
from headrace.cli.app import app
from headrace.errors import UserError
from headrace.export import Wanted, export, targets, write
from headrace.formats.format import Exported, ReadableFormat, _opened
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.registry import SEQUENCES
from headrace.formats.sequences import SequenceExport, left_behind
from headrace.sequence.loader import Loader
from headrace.sequence.provenance import beside, replay_rows
from headrace.tokens.load import open_decoder


def published(folder: Path, vocab: int = 500) -> np.ndarray:
    """Two folders of files as others publish them; their rows."""
    parts = [rows(n, vocab=vocab) for n in (5, 9, 3)]
    for name, part in zip(("A/data-00001.h5", "A/data-00003.h5", "B/data-00001.h5"), parts, strict=True):
        save(folder / name, sample(part))
    return np.concatenate(parts)


@pytest.mark.parametrize("workers", [0, 2])
def test_published_files_are_exported(tmp_path, workers):
    tokens = published(tmp_path / "phase2")
    out = export(tmp_path / "phase2", tmp_path / "out", "hdf5", options=Options(rows_per_file=7), workers=workers)
    again = headrace.open_sequence(out, verify=True)
    assert (again.rows(0, len(again)) == tokens).all()
    assert again.fingerprint is not None
    with pytest.raises(UserError, match="Export them to hdf5"):
        export(out, tmp_path / "variable", "hdf5-vsl")
    # An export is exported in turn, and is then called the same.
    more = export(out, tmp_path / "more", "hdf5", workers=0)
    assert headrace.open_sequence(more, "phase2").fingerprint == again.fingerprint


@pytest.mark.filterwarnings("ignore::headrace.flow.notices.Notice")  # of labels left out, see test_hdf5.py
@pytest.mark.parametrize("format", SEQUENCES)
@pytest.mark.parametrize("documents", [True, False])
def test_published_files_are_exported_to_every_format(documents, format, tmp_path):
    """Nobody knows which documents they hold: no format invents it, and none needs it."""
    if documents:
        inside = [[RNG.integers(3, 500, n) for n in lengths] for lengths in ((9, 21), (12,), (33,), (2, 2, 2))]
        save(tmp_path / "in/a.h5", variable(inside))
        save(tmp_path / "in/b.h5", variable(inside[::-1]))
    elif format != "hdf5-vsl":
        published(tmp_path / "in")
    else:
        return
    one = Exported.of(tmp_path / "in")
    step = SequenceExport(format, (one,), Options(rows_per_file=3))
    assert "provenance" not in step.left_behind()
    out = write(step, tmp_path / "out", workers=0)
    if not isinstance(SEQUENCES[format], ReadableFormat):
        return
    ours, theirs = one.open(), open_files(out).verified()
    n = len(ours)
    assert theirs.fingerprint == ours.fingerprint
    assert (theirs.rows(0, n) == ours.rows(0, n)).all()
    assert (theirs.targets(0, n) == ours.targets(0, n)).all() or "loss" in left_behind(SEQUENCES[format], [one])
    told = documents and "segments" in SEQUENCES[format].keeps
    assert (theirs.segments_in(0, n) is not None) == told
    for row in range(n if told else 0):
        assert theirs.segments(row).dtype.names == ("start", "length", "kind")
        assert (theirs.segments(row) == ours.segments(row)).all()


def test_files_are_opened_from_wherever_the_program_is(tmp_path, monkeypatch):
    """The processes that look at files began elsewhere."""
    for name in ("one", "two"):
        published(tmp_path / name / "h5")
        export(tmp_path / name / "h5", tmp_path / name / "hub", "hub", workers=0)
        monkeypatch.chdir(tmp_path / name)
        assert len(open_files(Path("h5"))) == len(open_files(Path("hub/h5"))) == 17


@pytest.mark.parametrize(
    ("folder", "given", "named"),
    [
        ("phase2", ".", "phase2"),
        ("phase2", "A/..", "phase2"),
        ("..a|`<b>x\n# é", None, "sequence"),
        ("a|`<b>x\n# é", None, "a_b_x"),
        ("x" * 200, None, "x" * 64),
        ("phase 2.1", None, "phase_2"),
    ],
)
def test_what_a_folder_is_called_leads_nowhere_else(folder, given, named, tmp_path, monkeypatch):
    """Names of other people's folders become names of folders, and stand in README.md."""
    tokens = published(tmp_path / "in" / folder)
    monkeypatch.chdir(tmp_path / "in" / folder)
    out = export(given or tmp_path / "in" / folder, tmp_path / "out", "hub", workers=0)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == {
        "README.md",
        "manifest.json",
        f"{named}/train-00000.parquet",
    }
    assert len(datasets.load_dataset(str(out), named, split="train", cache_dir=str(tmp_path))) == len(tokens)


def test_a_hub_gets_published_rows_spelled_out(sequences, tmp_path):
    """What CrystalCoder's hub could not show, with the text of a tokenizer's file."""
    tokenizer = beside(sequences[0].open(), "tokenizer")
    tokens = published(tmp_path / "phase2", vocab=260)
    wanted = Wanted(tokenizer=tokenizer.path / "tokenizer.json")
    out = export(tmp_path / "phase2", tmp_path / "out", "hub", wanted, workers=2)
    loaded = datasets.load_dataset(str(out), "phase2", split="train", streaming=True)
    decoder = open_decoder(tokenizer)
    for row, ids in zip(loaded, tokens, strict=True):
        assert set(row) == {"input_ids", "loss_mask", "text"}
        assert row["input_ids"] == ids.tolist()
        assert row["text"] == decoder.decode(ids.astype(np.uint32)).decode("utf-8", "replace")
    other = export(tmp_path / "phase2", tmp_path / "other", "hub", workers=0)
    [plain] = datasets.load_dataset(str(other), "phase2", split="train", cache_dir=str(tmp_path)).select([3])
    assert plain == {"input_ids": tokens[3].tolist(), "loss_mask": [False] + [True] * L}
    published(tmp_path / "strange", vocab=10_000)
    with pytest.raises(UserError, match="has token id"):
        export(tmp_path / "strange", tmp_path / "none", "hub", wanted, workers=0)
    with pytest.raises(UserError, match="format that holds text"):
        export(tmp_path / "phase2", tmp_path / "more", "mds", wanted)


def test_what_is_said_of_files_must_hold(tmp_path):
    published(tmp_path / "phase2")
    with pytest.raises(UserError, match="without a name"):
        headrace.open_sequence(tmp_path / "phase2", "phase1")
    with pytest.raises(UserError, match=f"have {L} tokens, not 7"):
        headrace.open_sequence(tmp_path / "phase2", seq_len=7)
    with pytest.raises(UserError, match=f"have {L} tokens, not 7"):
        export(tmp_path / "phase2", tmp_path / "out", "mds", Wanted(seq_len=7))


def test_folders_are_read_as_people_leave_them(tmp_path):
    """Halves made of links, as CrystalCoder's were; hidden folders of downloads; names in capitals; links back."""
    tokens = published(tmp_path / "all")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/A").symlink_to("../all/A")
    (tmp_path / "all/B/data-00001.h5").rename(tmp_path / "all/B/DATA-00001.H5")
    (tmp_path / "half/B").symlink_to(tmp_path / "all/B")
    (tmp_path / "all/A/back").symlink_to(".")
    (tmp_path / "all/B/round").symlink_to("../B")
    (tmp_path / "half/.cache").symlink_to("../all/A")
    sequence = open_files(tmp_path / "half")
    assert [file.path.relative_to(tmp_path / "half").as_posix() for file in sequence.files] == [
        "A/data-00001.h5",
        "A/data-00003.h5",
        "B/DATA-00001.H5",
    ]
    assert (sequence.rows(0, len(sequence)) == tokens).all()


def test_an_export_of_changed_files_does_not_go_on(tmp_path):
    published(tmp_path / "phase2")
    one = Exported.of(tmp_path / "phase2")
    assert Exported(**json.loads(json.dumps(asdict(one)))) == one
    save(tmp_path / "phase2/A/data-00001.h5", sample(rows(5)))
    with pytest.raises(UserError, match="is damaged"):
        write(SequenceExport("hdf5", (one,), Options()), tmp_path / "out", workers=0)
    shutil.copy(tmp_path / "phase2/A/data-00001.h5", tmp_path / "phase2/A/data-00002.h5")
    _opened.cache_clear()  # as in another process
    with pytest.raises(UserError, match="more or fewer files"):
        targets(tmp_path / "out.partial")[0].sequences[0].open()


def test_digests_make_a_fingerprint(tmp_path):
    published(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (open_files(tmp_path / name).digested() for name in ("one", "two"))
    assert Loader(two, 4, state=Loader(one, 4, start=8).state_dict()).consumed == 8
    save(tmp_path / "two/B/data-00001.h5", sample(rows(3)))
    with pytest.raises(UserError, match="another sequence"):
        Loader(open_files(tmp_path / "two").digested(), 4, state=Loader(one, 4).state_dict())


def test_positions_by_document_need_documents(tmp_path):
    published(tmp_path)
    with pytest.raises(UserError, match="do not tell where documents begin"):
        Loader(open_files(tmp_path), 2, positions="document").at(0).described()
    assert Loader(open_files(tmp_path), 2).at(0).positions[1, -1] == L - 1


def replayed(*arguments: object) -> tuple[int, str]:
    """The exit code and output of ``headrace replay``."""
    result = CliRunner().invoke(app, ["replay", *map(str, arguments)])
    told = f"{result.exception.what} {result.exception.fix}" if isinstance(result.exception, UserError) else ""
    return result.exit_code, result.output + told


def test_replay_needs_only_a_tokenizer(sequences, tmp_path):
    """A run's own export, opened by somebody who has the tokenizer's file and nothing else."""
    ours = sequences[0].open()
    tokenizer = beside(ours, "tokenizer")
    out = write(SequenceExport("hdf5", sequences[:1], Options()), tmp_path / "out", workers=0)
    code, output = replayed(out, "--step", 3, "--batch", 4)
    assert code != 0
    assert "--tokenizer FILE" in output
    asked = ("--step", 3, "--batch", 4, "--tokenizer", tokenizer.path / "tokenizer.json", "--json")
    code, output = replayed(out, *asked)
    assert code == 0
    told = json.loads(output)["rows"]
    expected = replay_rows(ours, beside(ours, "documents"), open_decoder(tokenizer), 8, 12)
    assert len(told) == 4
    for row, ours_ in zip(told, expected, strict=True):
        assert [s["text"] for s in row["segments"]] == [s.text for s in ours_.segments]
        assert [(s["source"], s["offset"], s["document"]) for s in row["segments"]] == [
            (s.source, s.offset, s.document) for s in ours_.segments
        ]
        assert {s["origin"] for s in row["segments"]} == {None}
    (out / "manifest.json").unlink()
    told = json.loads(replayed(out, *asked)[1])["rows"]
    assert [[s["kind"] for s in row["segments"]] for row in told] == [["unknown"]] * 4
    assert [row["tokens"] for row in told] == ours.rows(8, 12).tolist()
    assert replayed(out, *asked[:-1])[0] == 0


def test_the_wrong_tokenizer_is_noticed(sequences, tmp_path):
    tokenizer = beside(sequences[0].open(), "tokenizer").path / "tokenizer.json"
    published(tmp_path / "theirs", vocab=100_000)
    code, output = replayed(tmp_path / "theirs", "--step", 1, "--tokenizer", tokenizer)
    assert code != 0
    assert "Row 0 has token id" in output
