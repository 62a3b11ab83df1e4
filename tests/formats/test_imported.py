"""A recipe whose stages train on sequences that are there already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from test_hdf5 import rows, sample, save

import headrace
from headrace.errors import UserError
from headrace.export import Wanted, export, write
from headrace.flow.artifact import Artifact
from headrace.flow.storage import read_json
from headrace.formats import imported
from headrace.formats.options import Options
from headrace.formats.sequences import SequenceExport
from headrace.planning.forecast import plan
from headrace.run_folder import artifact, stage_sequence
from headrace.sequence.loader import Loader
from headrace.sequence.provenance import beside
from headrace.tokens.load import open_decoder

TINY = {"layers": 1, "width": 16, "heads": 2, "ffn": 32, "rotary_dim": 8}


def recipe(tokenizer: Path, **more: object) -> headrace.Recipe:
    """A recipe of nothing but stages."""
    return headrace.Recipe(name="phase2", tokenizer={"file": str(tokenizer)}, **more)


@pytest.fixture(scope="session")
def tokenizer(sequences) -> Path:
    return beside(sequences[0].open(), "tokenizer").path / "tokenizer.json"


def equal_batches(ours, theirs, rows_: int) -> None:
    for positions in ("row", "document"):
        for a, b in zip(
            Loader(ours, rows_, positions=positions), Loader(theirs, rows_, positions=positions), strict=True
        ):
            assert (a.tokens == b.tokens).all()
            assert (a.loss == b.loss).all()
            assert (a.segment_ids == b.segment_ids).all()
            assert (a.positions == b.positions).all()


def test_the_batches_of_an_export_are_those_of_its_run(sequences, tokenizer, tmp_path):
    out = write(SequenceExport("hdf5", sequences, Options(rows_per_file=40)), tmp_path / "out", workers=0)
    ours = sequences[1].open()
    stage = {
        "name": "again",
        "sequence": {"path": str(out), "stage": sequences[1].name},
        "sequence_length": ours.seq_len,
    }
    headrace.run(recipe(tokenizer, stages=[stage]), tmp_path / "run", workers=2)
    theirs = stage_sequence(tmp_path / "run", "again", verify=True)
    equal_batches(ours, theirs, 7)
    assert theirs.sources == ours.sources
    ledger = theirs.manifest["ledger"]["sources"]
    before = ours.manifest["ledger"]["sources"]
    assert {name: entry["loss_tokens"] for name, entry in ledger.items() if entry["tokens_placed"]} == {
        name: entry["loss_tokens"] for name, entry in before.items()
    }
    # Nothing is built twice, and nothing changes with the place of the files.
    made = Artifact.open(theirs.path).manifest.identity
    out.rename(tmp_path / "moved")
    stage["sequence"]["path"] = str(tmp_path / "moved")
    headrace.run(recipe(tokenizer, stages=[stage]), tmp_path / "run", workers=0)
    assert artifact(tmp_path / "run", "sequence", "again").manifest.identity == made


def test_published_files_are_trained_on_in_order(tokenizer, tmp_path):
    """Two halves of somebody else's files, one after the other; then the same, changed."""
    pytest.importorskip("torch")
    parts = [rows(n, 32, 200) for n in (16, 24)]
    for name, part in zip(("A/data-00001.h5", "B/data-00001.h5"), parts, strict=True):
        save(tmp_path / "phase2" / name, sample(part))
    files = [{"path": str(tmp_path / "phase2/B"), "slice": [0.5, 1.0]}, str(tmp_path / "phase2/A")]
    train = {"batch": 4, "samples": {"tokens": 0}}
    stage = {"name": "phase2", "sequence": files, "sequence_length": 32, "train": train}
    save(tmp_path / "val.h5", sample(rows(3, 32, 200)))
    asked = recipe(tokenizer, stages=[stage], model=TINY, held_out=str(tmp_path / "val.h5"))
    headrace.run(asked, tmp_path / "run", workers=1)
    sequence = stage_sequence(tmp_path / "run", "phase2")
    assert (sequence.rows(0, len(sequence)) == np.concatenate([parts[1][12:], parts[0]])).all()
    assert sequence.sources == ["B", "A"]
    model = artifact(tmp_path / "run", "model", "phase2")
    assert model.manifest.counts["steps"] == 7
    evaluation = read_json(artifact(tmp_path / "run", "evaluation", "phase2").file_path("evaluation.json"))["held_out"]
    assert (evaluation["rows"], evaluation["sources"]["val"]["tokens"]) == (3, 3 * 32)
    assert model.manifest.counts["sources"] == {"A": 16 * 32, "B": 12 * 32}
    save(tmp_path / "phase2/A/data-00001.h5", sample(parts[0][::-1]))
    headrace.run(asked, tmp_path / "run", workers=1, until="sequence-phase2")
    assert (stage_sequence(tmp_path / "run", "phase2").rows(12, 28) == parts[0][::-1]).all()


def test_a_run_without_documents_is_exported_to_a_hub(tokenizer, tmp_path):
    """Whose documents these are, nobody knows; their text and source are known."""
    save(tmp_path / "theirs.h5", sample(rows(9, 32, 200)))
    stage = {"name": "one", "sequence": str(tmp_path / "theirs.h5"), "sequence_length": 32}
    headrace.run(recipe(tokenizer, stages=[stage]), tmp_path / "run", workers=0)
    out = export(tmp_path / "run", tmp_path / "out", "hub", Wanted(everything=True), workers=0)
    ours, theirs = stage_sequence(tmp_path / "run", "one"), headrace.open_sequence(out, "one", verify=True)
    equal_batches(ours, theirs, 4)
    assert all((theirs.segments(row) == ours.segments(row)).all() for row in range(9))
    table = pq.read_table(out / "one/train-00000.parquet")
    assert table.column_names == ["input_ids", "loss_mask", "text", "segments"]
    segments = table["segments"].combine_chunks().flatten()
    assert segments.field("document").null_count == segments.field("id").null_count == 9
    assert set(segments.field("source").to_pylist()) == {"theirs"}


@pytest.mark.parametrize(
    ("vocab", "length", "words"), [(100_000, 32, "the tokenizer has"), (200, 64, "sequence_length: 32")]
)
def test_what_does_not_fit_is_refused(tokenizer, tmp_path, vocab, length, words):
    save(tmp_path / "theirs.h5", sample(rows(4, 32, vocab)))
    stage = {"name": "one", "sequence": str(tmp_path / "theirs.h5"), "sequence_length": length}
    with pytest.raises(UserError) as error:
        headrace.run(recipe(tokenizer, stages=[stage]), tmp_path / "run", workers=0)
    assert words in f"{error.value.what} {error.value.fix}"


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"stages": []}, "no sources"),
        ({"stages": [{"name": "one"}]}, "neither"),
        ({"stages": [{"name": "one", "sequence": {"path": "x", "slice": [1, 0]}}]}, "slice"),
    ],
)
def test_a_recipe_needs_input(tokenizer, sections, words):
    with pytest.raises(UserError) as error:
        recipe(tokenizer, **sections)
    assert words in str(error.value)


@pytest.mark.parametrize("weights", [(None, None), (0.7, 0.3)])
def test_a_plan_says_what_the_run_then_does(tokenizer, tmp_path, weights):
    pytest.importorskip("torch")
    for name, n in (("A", 40), ("B", 21)):
        save(tmp_path / name / "data-00000.h5", sample(rows(n, 32, 200)))
    save(tmp_path / "val.h5", sample(rows(3, 32, 200)))
    files = [
        {"path": str(tmp_path / name), "slice": part, "weight": weight}
        for name, part, weight in zip("AB", ([0.25, 1], [0, 1]), weights, strict=True)
    ]
    train = {"batch": 4, "samples": {"tokens": 0}}
    stage = {"name": "one", "sequence": files, "sequence_length": 32, "train": train}
    asked = recipe(tokenizer, stages=[stage], model=TINY, held_out=str(tmp_path / "val.h5"))
    for run in (None, tmp_path / "run"):
        made = plan(asked, run)
        headrace.run(asked, tmp_path / "run", workers=0)
        [planned] = made.stages
        sequence, model = stage_sequence(tmp_path / "run", "one"), artifact(tmp_path / "run", "model", "one")
        assert (planned.rows, planned.tokens, planned.basis) == (len(sequence), len(sequence) * 32, "measured")
        assert planned.steps == model.manifest.counts["steps"]
        assert {node.name for node in made.graph} == {
            "tokenizer",
            "sequence-one",
            "sequence-heldout",
            "model-one",
        }
        assert [work.artifact for work in made.work] == ["sequence-one"] * (run is None)
        assert all(node.done for node in made.graph) == (run is not None)
        assert f"{planned.steps} steps of 4 x 32" in str(made)
        told = sequence.manifest["ledger"]["sources"]
        assert [share.epochs for share in planned.sources] == [told[name]["epochs"] for name in "AB"]
        assert [share.tokens for share in planned.sources] == [told[name]["tokens_placed"] // 33 * 32 for name in "AB"]


def test_a_plan_refuses_what_a_run_would(tokenizer, tmp_path):
    stage = {"name": "one", "sequence": str(tmp_path / "gone"), "sequence_length": 32}
    with pytest.raises(UserError, match="no such file"):
        plan(recipe(tokenizer, stages=[stage]))
    save(tmp_path / "gone" / "a.h5", sample(rows(3, 16, 200)))
    with pytest.raises(UserError, match="sequence_length: 16"):
        plan(recipe(tokenizer, stages=[stage]))


def mixture(lengths: list[int], weights: list[float], seed: int) -> list[tuple[int, int]]:
    """Which row of which sequence comes when, by the description of the Model Zoo's ``Mixture``, written plainly."""
    weights = [weight / sum(weights) for weight in weights]
    total = max(n / w for n, w in zip(lengths, weights, strict=True) if w > 0.05)
    labels = [i for i, w in enumerate(weights) for _ in range(int(total * w))]
    places = np.arange(len(labels))
    np.random.default_rng(seed).shuffle(places)
    seen = [0] * len(lengths)
    order = []
    for place in places:
        which = labels[place]
        order.append((which, seen[which] % lengths[which]))
        seen[which] += 1
    return order


def test_sequences_are_mixed_as_crystalcoder_was(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(imported, "SHARD_BYTES", 20 * 2 * 33)
    parts, weights = [rows(n, 32, 200) for n in (50, 30, 7, 40)], [0.6, 0.3, 0.04, 0.06]
    for i, part in enumerate(parts):
        save(tmp_path / f"{i}.h5", sample(part))
    files = [{"path": str(tmp_path / f"{i}.h5"), "weight": 10 * w} for i, w in enumerate(weights)]
    files[1]["slice"] = [0.0, 0.5]
    stage = {"name": "mixed", "sequence": files, "sequence_length": 32}
    headrace.run(recipe(tokenizer, stages=[stage], seed=3), tmp_path / "run", workers=0)
    sequence = stage_sequence(tmp_path / "run", "mixed")
    order = mixture([50, 15, 7, 40], weights, 3)
    assert len(sequence) == len(order)
    assert len(sequence.artifact.shards) > 10
    assert (sequence.rows(0, len(order)) == [parts[i][row] for i, row in order]).all()
    assert [sequence.sources[sequence.segments(n)[0]["source"]] for n in range(len(order))] == [
        str(i) for i, _ in order
    ]
    ledger = sequence.manifest["ledger"]["sources"]
    counted = np.bincount([i for i, _ in order])
    assert [ledger[str(i)]["epochs"] for i in range(4)] == [
        n / m for n, m in zip(counted, [50, 15, 7, 40], strict=True)
    ]


def test_folders_and_parts_of_a_mixture_follow_one_another_and_epochs_repeat(tmp_path, monkeypatch):
    """Two folders as one source, three of its parts, all of it three times; no tokenizer but the number of ids."""
    monkeypatch.setattr(imported, "SHARD_BYTES", 20 * 2 * 33)
    parts = [rows(n, 32, 200) for n in (31, 29, 25)]
    for i, part in enumerate(parts):
        save(tmp_path / f"{i}/data.h5", sample(part))
    both = {"path": [str(tmp_path / "0"), str(tmp_path / "1")], "slice": [[0.0, 0.1], [0.5, 0.6], [0.9, 1.0]]}
    files = [{**both, "weight": 2}, {"path": str(tmp_path / "2"), "weight": 3}]
    stage = {"name": "mixed", "sequence": files, "sequence_length": 32, "epochs": 3}
    asked = headrace.Recipe(name="ids", tokenizer={"ids": 200}, stages=[stage], seed=5)
    headrace.run(asked, tmp_path / "run", workers=0)
    sequence = stage_sequence(tmp_path / "run", "mixed")
    joined = np.concatenate(parts[:2])
    taken = [np.concatenate([joined[0:6], joined[30:36], joined[54:60]]), parts[2]]
    order = mixture([18, 25], [0.4, 0.6], 5)
    once = np.array([taken[i][row] for i, row in order])
    assert (sequence.rows(0, len(sequence)) == np.tile(once, (3, 1))).all()
    ledger = sequence.manifest["ledger"]["sources"]
    counted = np.bincount([i for i, _ in order])
    assert ledger["2"]["epochs"] == 3 * counted[1] / 25
    assert ledger["0"]["epochs"] == ledger["1"]["epochs"] == pytest.approx(3 * counted[0] / 18)
    plain = {"name": "plain", "sequence": [both], "sequence_length": 32, "epochs": 2}
    headrace.run(headrace.Recipe(name="ids", tokenizer={"ids": 200}, stages=[plain]), tmp_path / "run", workers=0)
    sequence = stage_sequence(tmp_path / "run", "plain")
    assert (sequence.rows(0, len(sequence)) == np.tile(taken[0], (2, 1))).all()


def test_ids_alone_train_a_model_but_show_no_text(tmp_path):
    pytest.importorskip("torch")
    save(tmp_path / "a.h5", sample(rows(8, 32, 200)))
    train = {"batch": 4, "precision": "fp32", "held_out": {"rows": None}}
    stage = {"name": "one", "sequence": str(tmp_path / "a.h5"), "sequence_length": 32, "train": train}
    sections = {"name": "ids", "tokenizer": {"ids": 200}, "stages": [stage], "model": {"preset": None, **TINY}}
    asked = headrace.Recipe(**sections, held_out=str(tmp_path / "a.h5"))
    headrace.run(asked, tmp_path / "run", workers=0)
    assert artifact(tmp_path / "run", "evaluation", "one").manifest.counts["tokens"] == 8 * 32
    with pytest.raises(UserError, match="no tokenizer, only a number of ids"):
        open_decoder(artifact(tmp_path / "run", "tokenizer"))
    for words, changed in (
        ("text of sources", {"sources": {"a": {"files": "a.txt"}}}),
        ("A prompt", {"stages": [{**stage, "train": {"samples": {"prompts": ["a"]}}}]}),
        ("Keep `ids` alone", {"tokenizer": {"ids": 200, "loses": ["x"]}}),
        ("200 tokens, but the tokenizer has 300", {"model": {"vocab_size": 200}, "tokenizer": {"ids": 300}}),
    ):
        with pytest.raises(UserError, match=words):
            headrace.run(headrace.Recipe(**{**sections, **changed}), tmp_path / "other", workers=0)
