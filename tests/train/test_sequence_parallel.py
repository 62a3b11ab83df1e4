"""Processes that share rows train as one does: replicated, sharded, split; killed and resumed, in any number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_processes import SECTION, STEPS, described, ended, launch, same, trained_alone
from tiny_training import TinySequence, coordinate_steps, tiny_job

from headrace.errors import UserError
from headrace.sequence.store import open_sequence
from headrace.train.checkpoint import complete
from headrace.train.loop import Trainer
from headrace.train.steps import Leg
from headrace.train.trajectory import latest
from headrace.train.world import World, joined

LENGTH = 18  # four processes do not divide it
MODEL = {"heads": 4, "kv_heads": 2, "qk_norm": True, "sliding_window": 7, "sliding_window_pattern": 2}
ROWS = {"attention": {"documents": True, "positions": "document"}, "held_out": {"rows": 7, "every": 4}}


def shared(run: Path, sequence: Path, processes: int, context="auto", more=None, model=MODEL, **changes) -> dict:
    """A training; ``more``: keys of its `long` section."""
    long = {"sequence_parallel": processes, "context": context, **(more or {})}
    return described(run, sequence, model=model, long=long, **{**ROWS, **changes})


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    run = tmp_path_factory.mktemp("rows") / "run"
    [folder] = coordinate_steps(run, [TinySequence("one", 40, LENGTH)])
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sequence):
    return trained_alone(tmp_path_factory.mktemp("alone"), sequence, MODEL, **ROWS)


def test_two_processes_share_rows(tmp_path, sequence, alone):
    """Also stopped, and gone on with from there by two that share batches instead."""
    run = tmp_path / "stopped"
    jobs = [
        shared(tmp_path / "none", sequence, 2, shard="none", micro_batch=2),
        shared(tmp_path / "full", sequence, 2, more={"tile_mlp": 4}, shard="full", micro_batch=1, recompute="full"),
        shared(tmp_path / "ring", sequence, 2, "ring", shard="none", micro_batch=2),
        shared(tmp_path / "selective", sequence, 2, shard="full", recompute="selective"),
        {**shared(run, sequence, 2, "ring", shard="full"), "stop_after": 3},
        shared(run, sequence, 1, shard="none"),
    ]
    launch(2, jobs, tmp_path)
    for name in ("none", "full", "ring", "selective", "stopped"):
        same(tmp_path / name, alone, LENGTH)
    [*_, last] = complete(latest(run, "one"))
    spans = [(span["start"], span["until"], span["sequence_parallel"]) for span in last.state["spans"]]
    assert spans == [(0, 3, 2), (3, 6, 1)]
    one = Leg(None, latest(run, "one"), 1, STEPS, 0, SECTION["batch"], LENGTH)
    assert (one.ranks(2), one.ranks(5)) == (1, 2)


ON_HOST = {"offload_checkpoints": True, "offload_optimizer": True, "tile_loss": 7}
SHARDS_ON_HOST = {"offload_checkpoints": True, "offload_parameters": True, "tile_mlp": 5, "tile_loss": 3}


@pytest.mark.slow
def test_shared_rows_go_with_offloading_and_tiles(tmp_path, sequence, alone):
    jobs = [
        shared(tmp_path / "replicas", sequence, 2, more=ON_HOST, shard="none", micro_batch=2, recompute="full"),
        shared(tmp_path / "shards", sequence, 2, more=SHARDS_ON_HOST, shard="full", recompute="full"),
        shared(tmp_path / "ring", sequence, 2, "ring", more=SHARDS_ON_HOST, micro_batch=2, recompute="full"),
    ]
    launch(2, jobs, tmp_path)
    for name in ("replicas", "shards", "ring"):
        same(tmp_path / name, alone, LENGTH)


@pytest.mark.slow
def test_four_processes_share_rows_batches_and_matrices(tmp_path, sequence, alone):
    run = tmp_path / "stopped"
    jobs = [
        shared(tmp_path / "four", sequence, 4, shard="none", micro_batch=2),
        shared(tmp_path / "ring", sequence, 4, "ring", shard="full", recompute="full"),
        shared(tmp_path / "pairs", sequence, 2, shard="none", micro_batch=1),
        shared(tmp_path / "pairs-full", sequence, 2, shard="full", recompute="full"),
        shared(tmp_path / "split", sequence, 2, tensor_parallel=2),
        {**shared(run, sequence, 4, shard="full"), "stop_after": 2},
        {**shared(run, sequence, 2, tensor_parallel=2), "stop_after": 4},
    ]
    launch(4, jobs, tmp_path)
    for name in ("four", "ring", "pairs", "pairs-full", "split"):
        same(tmp_path / name, alone, LENGTH)
    launch(2, [{**shared(run, sequence, 2, shard="none"), "stop_after": 5}], tmp_path)
    rows = open_sequence(sequence)
    trainer = Trainer(tiny_job(run, rows, STEPS, model=MODEL, measured_on=rows, **{**SECTION, **ROWS}), World())
    assert trainer.step == 5
    trainer.train(lambda step, loss: None)
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(tensor, alone[1][name], rtol=1e-3, atol=5e-4)


LLAMA = {"model_type": "llama", "vocab_size": 261, "hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True])
def test_a_killed_training_goes_on_as_if_nothing_had_been(tmp_path, sequence, foreign):
    """SIGKILL to one of two that share rows; then both again: bit by bit the weights of two that nobody killed."""
    killed, whole, more, model = tmp_path / "killed", tmp_path / "whole", None, MODEL
    if foreign:
        pytest.importorskip("transformers")
        folder, more = tmp_path / "llama", {"tile_mlp": 4, "tile_loss": 7}
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(LLAMA))
        model = {"huggingface": str(folder)}

    def trained(run: Path) -> dict:
        return shared(run, sequence, 2, more=more, model=model, shard="full")

    codes, said = ended(2, [{**trained(killed), "dies_at": 4}], tmp_path)
    assert codes == [1, -9], said
    assert "Another process of this training has ended" in said
    assert [one.step for one in complete(latest(killed, "one"))] == [2]
    launch(2, [trained(run) for run in (killed, whole)], tmp_path)
    assert json.loads((killed / "seen.json").read_text()) == [3, 4, 5, 6]
    a, b = (load_file(run / "whole.safetensors") for run in (killed, whole))
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.mark.parametrize(
    ("size", "tensor", "sequence", "message", "key"),
    [
        ("6", 1, 4, "6 processes cannot share each row 4 ways", "train.long.sequence_parallel"),
        ("1", 1, 2, "1 process cannot share each row 2 ways", "train.long.sequence_parallel"),
        ("6", 2, 2, "6 processes cannot share each matrix 2 ways and share each row 2 ways", "train.long"),
        ("3", 2, 1, "3 processes cannot share each matrix 2 ways", "train.tensor_parallel"),
    ],
)
def test_a_wrong_number_of_processes_is_refused(monkeypatch, size, tensor, sequence, message, key):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", size), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message) as told, joined(tensor, sequence):
        pass
    assert told.value.where.startswith(key)
    assert f"--nproc-per-node {tensor * sequence}" in told.value.fix
