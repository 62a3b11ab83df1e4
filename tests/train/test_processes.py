"""Several processes train as one does: replicated, sharded, split; any world goes on where another stopped."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import SIZES, TinySequence, coordinate_steps, tiny_job

from headrace.sequence.store import open_sequence
from headrace.train import losses
from headrace.train.checkpoint import complete
from headrace.train.loop import Trainer
from headrace.train.metrics import read
from headrace.train.trajectory import latest
from headrace.train.world import World

HERE = Path(__file__).parent
STEPS = 6
# Rows differ in how many targets they have, 5 is a multiple of no number of processes, and so shares are uneven.
SECTION = {"batch": 5, "checkpoint_every": 2, "keep": 9, "optimizer": {"learning_rate": 0.01}}
SECTION["record"] = {"tokens": 1}
ON_HOST = {"offload_parameters": True, "offload_optimizer": True, "tile_mlp": 5}


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    run = tmp_path_factory.mktemp("rows") / "run"
    [folder] = coordinate_steps(run, [TinySequence("one", 40)])
    return folder


def trained_alone(run, sequence, model=None, **changes):
    rows = open_sequence(sequence)
    job = tiny_job(run, rows, STEPS, model=model, measured_on=rows, sizes=SIZES, **{**SECTION, **changes})
    trainer = Trainer(job, World())
    trainer.train(lambda step, loss: None)
    return run, {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sequence):
    return trained_alone(tmp_path_factory.mktemp("alone"), sequence)


def ended(processes: int, jobs: list[dict], tmp_path: Path) -> tuple[list[int], str]:
    """How each process ended and what they said, without torchrun, which would end all for one."""
    told = tmp_path / "jobs.json"
    told.write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / "launched.py"), str(told), str(processes)]
    done = subprocess.run(command, env=os.environ | place, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stderr


def launch(processes: int, jobs: list[dict], tmp_path: Path) -> None:
    codes, said = ended(processes, jobs, tmp_path)
    assert codes == [0] * processes, said[-6000:]


def described(
    run: Path, sequence: Path, steps: int = STEPS, stop_after: int | None = None, model: dict | None = None, **changes
) -> dict:
    run.mkdir(parents=True, exist_ok=True)
    told = {"run": str(run), "sequence": str(sequence), "steps": steps, "model": model, "stop_after": stop_after}
    return {**told, "section": {**SECTION, **changes}}


def same(run: Path, alone, length: int = 16) -> None:
    reference, weights = alone
    for name, tensor in load_file(run / "whole.safetensors").items():
        torch.testing.assert_close(
            tensor, weights[name], rtol=1e-3, atol=5e-4
        )  # a key bias has no gradient but rounding
    told = latest(run, "one"), latest(reference, "one")
    for step in range(1, STEPS + 1):
        rows, expected = (losses.rows_of(folder, 5, step) for folder in told)
        np.testing.assert_array_equal(rows.targets, expected.targets)
        np.testing.assert_allclose(rows.loss, expected.loss, rtol=1e-4)
        tokens, expected = (losses.tokens_of(folder, length, step) for folder in told)
        assert list(tokens) == list(expected) == list(range(5 * step - 5, 5 * step))
        for row, found in tokens.items():
            np.testing.assert_allclose(found, expected[row], rtol=5e-3, atol=1e-3)
    ours, theirs = read(latest(run, "one") / "metrics.jsonl"), read(latest(reference, "one") / "metrics.jsonl")
    assert len(ours) == len(theirs) == STEPS
    for a, b in zip(ours, theirs, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-4)
        assert a["loss_tokens"] == b["loss_tokens"]
        assert a["sources"].keys() == b["sources"].keys()
        for name, told in b["sources"].items():
            for key in ("loss", "tokens"):
                assert a["sources"][name][key] == pytest.approx(told[key], rel=1e-5)
    for a, b in zip(*(measured(latest(folder, "one")) for folder in (run, reference)), strict=True):
        assert (a["rows"], a["tokens"]) == (b["rows"], b["tokens"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def measured(folder: Path) -> list[dict]:
    path = folder / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_losses_gradients_and_weights_are_those_of_one_process(tmp_path, sequence, alone, processes):
    ways = {
        f"{shard}-{micro}-{recompute}": {"shard": shard, "micro_batch": micro, "recompute": recompute}
        for shard, micro, recompute in [
            ("none", None, "none"),
            ("none", 1, "full"),
            ("full", None, "selective"),
            ("full", 1, "none"),
            ("full", 2, "full"),
        ]
    }
    tiled = {"long": {"tile_mlp": 5, "tile_loss": 7, "offload_optimizer": True}}
    ways["none-tiled"] = {"shard": "none", "micro_batch": 2, "recompute": "full", **tiled}
    ways["full-tiled"] = {"shard": "full", "micro_batch": None, "recompute": "none", **tiled}
    ways["full-tiled-full"] = {"shard": "full", "micro_batch": 2, "recompute": "full"}
    ways["full-tiled-full"]["long"] = {**tiled["long"], "offload_checkpoints": True}
    ways["on-host"] = {"micro_batch": 2, "recompute": "full", "long": ON_HOST}
    launch(processes, [described(tmp_path / name, sequence, **way) for name, way in ways.items()], tmp_path)
    for name in ways:
        same(tmp_path / name, alone)


@pytest.mark.slow
def test_one_process_with_its_weights_on_the_host(tmp_path, sequence, alone):
    """Its checkpoints are anybody's."""
    run = tmp_path / "run"
    stopped = described(run, sequence, stop_after=3, recompute="full", long=ON_HOST)
    launch(1, [stopped, described(run, sequence), described(tmp_path / "whole", sequence, long=ON_HOST)], tmp_path)
    assert json.loads((run / "seen.json").read_text()) == [4, 5, 6]
    for one in (run, tmp_path / "whole"):
        same(one, alone)


def test_a_world_goes_on_where_another_stopped(tmp_path, sequence, alone):
    """Sharded on two, asked to stop; then alone; then replicated on two; as one run."""
    run = tmp_path / "run"
    launch(2, [described(run, sequence, stop_after=3, shard="full")], tmp_path)
    assert (run / "interrupted").read_text() == "3"
    assert [one.step for one in complete(latest(run, "one"))] == [2, 3]
    files = sorted(path.name[:11] for path in (latest(run, "one") / "step-00000003" / "model").iterdir())
    assert files == ["shard-00001", "shard-00002"]
    part = Trainer(tiny_job(run, open_sequence(sequence), STEPS, **SECTION), World())
    assert part.step == 3
    for name, tensor in part.model.state_dict().items():
        torch.testing.assert_close(tensor, load_file(run / "whole.safetensors")[name], rtol=0, atol=0)

    class Stop(Exception):  # noqa: N818
        pass

    def until_five(step, loss):
        if step == 5:
            raise Stop

    with pytest.raises(Stop):
        part.train(until_five)
    launch(2, [described(run, sequence, shard="none")], tmp_path)
    assert json.loads((run / "seen.json").read_text()) == [5, 6]
    same(run, alone)
    spans = complete(latest(run, "one"))[-1].state["spans"]
    assert [(s["start"], s["until"], s["processes"], s["shard"]) for s in spans] == [
        (0, 3, 2, "full"),
        (3, 4, 1, "auto"),
        (4, 6, 2, "none"),
    ]


def test_a_checkpoint_that_one_process_cannot_write_is_an_error_of_all(tmp_path, sequence):
    """Rank 0 cannot publish it; no other process may wait for it."""
    run = tmp_path / "run"
    folder = tiny_job(run, open_sequence(sequence), STEPS, **SECTION).folder
    folder.mkdir(parents=True)
    (folder / "step-00000002").write_text("in the way")
    launch(2, [{**described(run, sequence), "fails": True}], tmp_path)
    assert "A file is where a folder should be" in (run / "failed-0").read_text()
    assert "Another process could not write" in (run / "failed-1").read_text()
    assert [path.name for path in folder.glob(".step*")] == []


def test_of_a_process_that_ends_the_others_say_so(tmp_path, sequence):
    codes, said = ended(2, [{**described(tmp_path / "run", sequence), "dies_at": 3}], tmp_path)
    assert codes == [1, -9], said
    assert "Another process of this training has ended" in said


@pytest.mark.slow
def test_matrices_are_split_over_processes(tmp_path, sequence, alone):
    ways = {"split": {}, "tiled": {"long": {"tile_mlp": 5, "tile_loss": 7, "offload_optimizer": True}}}
    both = [described(tmp_path / name, sequence, tensor_parallel=2, **way) for name, way in ways.items()]
    launch(2, both, tmp_path)
    for name in ways:
        same(tmp_path / name, alone)


@pytest.mark.slow
def test_shards_are_split_over_processes(tmp_path, sequence, alone):
    tiled = {"none": {}, "full": {"tile_mlp": 5}}
    both = [described(tmp_path / shard, sequence, tensor_parallel=2, shard=shard, long=tiled[shard]) for shard in tiled]
    # The last process shares its rows with another, which must hear of the signal too.
    stopped = described(tmp_path / "stopped", sequence, tensor_parallel=2, stop_after=3)
    launch(4, [*both, stopped, described(tmp_path / "stopped", sequence, tensor_parallel=2)], tmp_path)
    for shard in ("none", "full", "stopped"):
        same(tmp_path / shard, alone)
    assert (tmp_path / "stopped" / "interrupted").read_text() == "3"


@pytest.mark.slow
def test_muon_orthogonalizes_whole_matrices_of_shards(tmp_path, sequence):
    """Replicated, sharded, split, both; and a sharded run goes on alone, and a run alone goes on split."""
    muon = {"optimizer": {"kind": "muon", "learning_rate": 0.01}}
    reference = trained_alone(tmp_path / "alone", sequence, **muon)
    ways = {shard: described(tmp_path / shard, sequence, shard=shard, **muon) for shard in ("none", "full")}
    stopped = described(tmp_path / "stopped", sequence, stop_after=3, shard="full", **muon)
    launch(2, [*ways.values(), stopped], tmp_path)
    part = Trainer(tiny_job(tmp_path / "stopped", open_sequence(sequence), STEPS, **{**SECTION, **muon}), World())
    assert part.step == 3
    part.train(lambda step, loss: None)
    save_file(part.model.state_dict(), tmp_path / "stopped" / "whole.safetensors")
    both = [described(tmp_path / f"split-{shard}", sequence, tensor_parallel=2, shard=shard, **muon)
            for shard in ("none", "full")]  # fmt: skip
    launch(4, both, tmp_path)
    launch(2, [described(tmp_path / "split", sequence, tensor_parallel=2, **muon)], tmp_path)
    for name in ("none", "full", "stopped", "split-none", "split-full", "split"):
        same(tmp_path / name, reference)
