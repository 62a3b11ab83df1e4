"""What became of every token and which steps were outlying, asked of runs that were stopped, edited and rolled back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from test_staged_training import HEADRACE, folder, made, run, stopped_after, trajectory  # noqa: F401 - fixtures

from headrace.documents.store import fetch
from headrace.ledger import ledger
from headrace.run_folder import stage_sequence
from headrace.sequence.provenance import beside
from headrace.sequence.target_sources import target_sources
from headrace.sequence.windows import PADDING
from headrace.spikes import ranges, spikes
from headrace.train.consumption import FATES


def asked(folder: Path, *arguments: str, code: int = 0) -> str:  # noqa: F811
    command = [*HEADRACE, arguments[0], str(folder / "run"), *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def of(folder: Path, stage: str) -> dict:  # noqa: F811
    """A stage's ledger, which must be conserved and agree with the training."""
    [told] = [one for one in ledger(folder / "run")["stages"] if one["stage"] == stage]
    assert told["checked"]
    assert not told["wrong"]
    sequence = stage_sequence(folder / "run", stage)
    assert sum(told["rows"].values()) == len(sequence)
    loss = sequence.targets(0, len(sequence)) & ~sequence.segments_in(0, len(sequence)).padding(sequence.seq_len)
    counts = np.bincount(target_sources(sequence, 0, len(sequence))[loss], minlength=len(sequence.sources) + 1)
    for i, name in enumerate(sequence.sources):
        if counts[i]:
            assert told["sources"][name]["sequence"] == counts[i]
            assert sum(told["sources"][name][fate] for fate in FATES) == counts[i]
    return told


def test_the_ledger_of_a_stage_that_was_stopped_edited_and_finished(folder):  # noqa: F811
    assert [(one["step"], one["rows"]["left"]) for one in [of(folder, "one")]] == [(0, 80)]
    stopped_after(folder, 6)
    told = of(folder, "one")
    assert (told["state"], told["step"], told["rows"]["trained"], told["rows"]["left"]) == ("underway", 6, 24, 56)
    (trajectory(folder) / "metrics.jsonl").write_bytes(b"")  # the checkpoint alone says the same
    assert of(folder, "one") == told

    # Rows 40 to 41 are in step 10, and rows 0 to 3 have been trained on already.
    run(folder, "defaults.train.leave_out=[[0, 3], [40, 41]]", "defaults.train.batch=8")
    told = of(folder, "one")
    assert told["state"] == "done"
    assert len(told["trajectories"]) == 2
    assert told["rows"]["left_out"] == 8
    assert told["rows"]["trained"] + told["rows"]["unused"] + 8 == len(stage_sequence(folder / "run", "one"))
    every = ledger(folder / "run")
    assert every["total"]["sequence"] == sum(one["sequence"] for one in every["sources"].values())
    said = asked(folder, "ledger")
    assert "one: prose" in said
    assert "left out" in said
    assert "in 2 parts" in said
    assert json.loads(asked(folder, "ledger", "--json")) == json.loads(json.dumps(every))


def tokens(sequence, first: int, stop: int) -> list[tuple]:
    """Each target of some rows: its document, which copy of it, and where in it."""
    found = []
    ids = fetch(beside(sequence, "documents"), range(beside(sequence, "documents").rows), ["id"])["id"].to_pylist()
    for row in range(first, stop):
        loss = sequence.loss(row, row + 1)[0]
        for part in sequence.segments(row):
            if part["kind"] != PADDING:
                at = range(part["start"], part["start"] + part["length"])
                begin = int(part["offset"]) - int(part["start"])
                found += [(ids[part["row"]], int(part["epoch"]), begin + i) for i in at if i and loss[i]]
    return found


@pytest.mark.parametrize("documents", ["same", "other"])
def test_of_a_replaced_sequence_every_token_is_accounted_for(folder, documents):  # noqa: F811
    stopped_after(folder, 7)
    old = stage_sequence(folder / "run", "one")
    changed = ["stages.0.sources.prose.epochs=2", "stages.0.train.steps=40"]
    if documents == "other":
        (folder / "a.jsonl").write_text(json.dumps({"text": "another text that nobody knows yet " * 20}) + "\n")
        changed += [f'sources.a={{files: "{folder}/a.jsonl"}}', "stages.0.sources.a={epochs: 1}"]
    run(folder, *changed, on_change="accept", until="model-one")
    told, new = of(folder, "one"), stage_sequence(folder / "run", "one")
    assert (old.artifact.manifest.inputs == new.artifact.manifest.inputs) == (documents == "same")
    before, skipped = set(tokens(old, 0, 28)), tokens(new, 0, 28)
    rows = {"elsewhere": skipped, "trained": tokens(new, 28, 160), "unused": tokens(new, 160, len(new))}
    again = {fate: sum(token in before for token in found) for fate, found in rows.items()}
    gone = len(before - {token for found in rows.values() for token in found})
    assert {fate: count for fate, count in told["replaced"]["again"].items() if count} == {
        fate: count for fate, count in again.items() if count
    }
    assert (told["replaced"]["gone"], told["replaced"]["more"]) == (gone, 0)
    assert told["replaced"]["trained"] == len(before) == sum(again.values()) + gone
    sources = told["sources"].values()
    assert sum(one["before"] for one in sources) == again["elsewhere"] > 0
    assert sum(one["passed"] for one in sources) == len(skipped) - again["elsewhere"] > 0
    said = asked(folder, "ledger")
    assert f"of {len(before):,} tokens trained on before, {again['trained']:,} trained on again" in said
    assert f"{again['elsewhere']:,} in rows passed over" in said

    shutil.rmtree(old.path)
    [told, *_] = ledger(folder / "run")["stages"]
    assert (told["checked"], told["replaced"], told["rows"]["elsewhere"]) == (False, None, 28)
    assert sum(one["elsewhere"] for one in told["sources"].values()) == len(skipped)
    assert "is not there to compare" in asked(folder, "ledger")


def test_of_many_rows_only_the_exceptions_are_counted_and_it_comes_to_the_same(folder, monkeypatch):  # noqa: F811
    stopped_after(folder, 6, "defaults.train.leave_out=[[4, 7]]")
    exact = of(folder, "one")
    most = stage_sequence(folder / "run", "one").seq_len * (len(stage_sequence(folder / "run", "one")) - 1)
    monkeypatch.setattr("headrace.train.consumption.COUNTED", most)
    [told, *_] = ledger(folder / "run")["stages"]
    assert not told["checked"]
    assert told["sources"]["prose"] | {"repeated": None} == exact["sources"]["prose"] | {"repeated": None}


def test_a_training_that_counted_otherwise_is_found_out(folder):  # noqa: F811
    stopped_after(folder, 6)
    path = trajectory(folder) / "metrics.jsonl"
    line = json.loads(path.read_bytes().splitlines()[-1])
    line["step"] += 1
    line["sources"]["prose"]["tokens"] -= 1
    path.write_bytes(path.read_bytes() + json.dumps(line).encode() + b"\n")
    assert "WRONG: prose: the rows have" in asked(folder, "ledger", code=1)


@pytest.mark.parametrize("action", ["skip", "rollback"])
def test_outlying_steps_are_shown_with_their_text_and_kept_apart(folder, action):  # noqa: F811
    guard = [f"defaults.train.guard.{key}" for key in ("window=2", "deviations=3", "in_a_row=99", f"action={action}")]
    run(folder, *guard)
    [one, *_] = spikes(folder / "run", "one")
    steps = [spike["step"] for spike in one["spikes"]]
    assert steps
    told = of(folder, "one")
    assert told["rows"]["skipped"] == 4 * len(steps)
    spike = one["spikes"][0]
    assert spike["rows"] == [4 * spike["step"] - 4, 4 * spike["step"] - 1]
    assert sorted(row["row"] for row in spike["seen"]) == list(range(spike["rows"][0], spike["rows"][1] + 1))
    losses = [row["loss"] for row in spike["seen"]]
    assert losses == sorted(losses, reverse=True)
    targets = sum(row["targets"] for row in spike["seen"])
    assert sum(row["loss"] * row["targets"] for row in spike["seen"]) / targets == pytest.approx(
        spike["loss"], rel=1e-5
    )
    assert spike["seen"][0]["sources"] == ["prose"]
    assert "prose.jsonl" in spike["seen"][0]["segments"][0]["origin"]
    assert one["leave_out"] == ranges([[4 * step - 4, 4 * step - 1] for step in steps])
    said = asked(folder, "spikes", "--stage", "one")
    assert f"step {spike['step']}, rows {spike['rows'][0]} to {spike['rows'][1]}" in said
    assert f"leave_out: [[{one['leave_out'][0][0]}, {one['leave_out'][0][1]}]" in said
    assert json.loads(asked(folder, "spikes", "--stage", "one", "--json")) == [one]


def test_ranges_that_touch_are_one():
    assert ranges([[8, 11], [0, 3], [4, 7], [20, 23], [21, 22]]) == [[0, 11], [20, 23]]


def test_a_stage_that_is_not_there_is_named(folder):  # noqa: F811
    command = [*HEADRACE, "spikes", str(folder / "run"), "--stage", "ones"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "one" in done.stderr
