"""A training in a run at a URL: another machine goes on with it, and with all that it has written."""

from __future__ import annotations

import pytest
import torch
from tiny_training import TinySequence, coordinate_steps, tiny_job

from headrace.flow.mirror import local_path, working_folder
from headrace.sequence.store import open_sequence
from headrace.train.loop import Trainer
from headrace.train.metrics import read
from headrace.train.world import World
from object_store import environment, serving

URL = "s3://bucket/runs/tiny"


class Gone(Exception):  # noqa: N818
    """The machine is lost."""


@pytest.fixture
def store(tmp_path, monkeypatch):
    with serving() as server, environment(server.url, HEADRACE_CACHE=str(tmp_path / "cache")):
        yield


def test_another_machine_goes_on_from_the_last_checkpoint(store, tmp_path, monkeypatch):
    [folder] = coordinate_steps(tmp_path / "rows", [TinySequence("one", 40)])
    sequence, changes = open_sequence(folder), {"checkpoint_every": 3, "keep": 2}
    whole = Trainer(tiny_job(tmp_path / "whole", sequence, 9, **changes), World())
    whole.train(lambda step, loss: None)

    def lost(step: int, loss: float) -> None:
        if step == 8:
            raise Gone

    with pytest.raises(Gone):
        Trainer(tiny_job(local_path(URL) / "checkpoints", sequence, 9, **changes), World()).train(lost)
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "empty"))
    job, seen = tiny_job(working_folder(URL) / "checkpoints", sequence, 9, **changes), []
    again = Trainer(job, World())
    again.train(lambda step, loss: seen.append(step))
    assert seen == [7, 8, 9]
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, again.model.state_dict()[name])
    first, second = (read(one.job.folder / "metrics.jsonl") for one in (whole, again))
    assert [(one["step"], one["loss"]) for one in first] == [(one["step"], one["loss"]) for one in second]
    assert (whole.job.folder / "row_losses.bin").read_bytes() == (job.folder / "row_losses.bin").read_bytes()
