"""The proof of exact resumption finds what it should."""

from __future__ import annotations

import pytest
from tiny_training import SECTION, TinySequence, coordinate_steps

from headrace.errors import UserError
from headrace.recipe.training import TrainSection
from headrace.train import proof


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    [folder] = coordinate_steps(tmp_path_factory.mktemp("rows") / "run", [TinySequence("one", 40)])
    return folder


def test_all_batches_are_equal(sequence, tmp_path):
    train = TrainSection.model_validate({**SECTION, "batch": 5, "micro_batch": None})
    cycle = [proof.Way(1, 2, "none"), proof.Way(2, 1, "full")]
    found = list(proof.prove(sequence, train, 5, tmp_path, 2, cycle))
    assert [(one.step, one.rows, one.equal, one.close) for one in found] == [
        (1, (0, 4), True, True),
        (2, (5, 9), True, True),
    ]
    assert len({one.digest for one in found}) == 2


@pytest.mark.slow
def test_a_row_read_twice_is_found(sequence, tmp_path, monkeypatch):
    stretch = proof.stretch

    def off_by_one(run, plan, way):
        told = stretch(run, plan, way)
        if plan["one"]:
            told[0]["rows"][1] = told[0]["rows"][0]
        return told

    monkeypatch.setattr(proof, "stretch", off_by_one)
    train = TrainSection.model_validate(SECTION)
    [one] = proof.prove(sequence, train, 5, tmp_path, 1, [proof.Way(1, None, "none")])
    assert not one.equal


def test_more_steps_than_batches_are_refused(sequence, tmp_path):
    train = TrainSection.model_validate(SECTION)
    with pytest.raises(UserError, match="only 10 batches"):
        list(proof.prove(sequence, train, 5, tmp_path, 11, [proof.Way(1, None, "none")]))


def test_ways_cover_processes_shards_and_micro_batches():
    found = proof.ways([1, 2], 8)
    assert {way.processes for way in found} == {1, 2}
    assert {way.shard for way in found} == {"none", "full"}
    assert len({way.micro_batch for way in found}) >= 2
