"""What a training tells: of its losses, its weights, its machine, to files that others read."""

from __future__ import annotations

import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_processes import launch
from tiny_training import SIZES, TinySequence, coordinate_steps, rows, tiny_job

from headrace.evaluate.heldout import held_out_loss
from headrace.recipe.training import AttentionSection, TrainSection
from headrace.sequence.store import open_sequence
from headrace.train.accelerators import known_peak, peak_flops
from headrace.train.checkpoint import complete
from headrace.train.loop import Trainer
from headrace.train.metrics import EVALUATIONS, FILE, TIMES, read
from headrace.train.trajectory import MODEL, latest
from headrace.train.world import World

SECTION = {"batch": 5, "checkpoint_every": 2, "keep": 9, "log_norms_every": 2, "held_out": {"rows": 7, "every": 2}}
STEPS = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    [folder] = coordinate_steps(tmp_path_factory.mktemp("rows") / "run", [TinySequence("one", 40)])
    return folder


def trained(run: Path, folder: Path, steps: int = STEPS, **changes) -> Trainer:
    rows = open_sequence(folder)
    job = tiny_job(run, rows, steps, measured_on=rows, sizes=SIZES, **{**SECTION, **changes})
    trainer = Trainer(job, World())
    trainer.train(lambda step, loss: None)
    return trainer


@pytest.fixture(scope="module")
def alone(tmp_path_factory, folder) -> Trainer:
    return trained(tmp_path_factory.mktemp("alone"), folder)


def test_bits_per_byte_are_those_of_the_bytes_behind_the_targets(alone):
    tokens, segments, loss = rows(40, 16, 1)
    for line in read(alone.job.folder / FILE):
        nats = size = 0.0
        for source, name in enumerate(("count", "pairs")):
            told = line["sources"][name]
            bytes_ = 0
            for r in range(5 * line["step"] - 5, 5 * line["step"]):
                for start, length, _, _, of, kind, _ in segments[r]:
                    part = slice(max(start, 1), start + length)
                    bytes_ += int(SIZES[tokens[r, part]][loss[r, part]].sum()) if (of, kind) == (source, 0) else 0
            assert told["bits_per_byte"] == pytest.approx(told["loss"] * told["tokens"] / math.log(2) / bytes_)
            nats, size = nats + told["loss"] * told["tokens"], size + bytes_
        assert line["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)


def test_norms_are_those_of_all_weights_and_of_what_a_step_changed(tmp_path, folder, alone):
    lines = read(alone.job.folder / FILE)
    assert ["weight_norm" in line for line in lines] == [False, True] * 3
    one, weights = trained(tmp_path, folder, 2, checkpoint_every=1), []
    for done in complete(one.job.folder):
        tensors: dict[str, torch.Tensor] = {}
        for file in done.files(MODEL):
            tensors |= load_file(file)
        weights.append(torch.cat([tensors[name].flatten() for name in sorted(tensors)]))
    line = read(one.job.folder / FILE)[1]
    assert line["weight_norm"] == pytest.approx(float(weights[1].norm()), rel=1e-5)
    assert line["update_norm"] == pytest.approx(float((weights[1] - weights[0]).norm()), rel=1e-4)


def test_the_log_says_what_a_step_took_of_the_machine(tmp_path, folder, alone):
    [*_, line] = read(alone.job.folder / FILE)
    assert line["memory"] > 10_000_000
    assert line["data_wait"] >= 0
    assert "mfu" not in line, "nothing is claimed of a processor whose peak nobody stated"
    [*_, line] = read(trained(tmp_path, folder, 1, peak_flops=1e9).job.folder / FILE)
    assert line["peak_flops"] == 1e9
    assert line["mfu"] > 0
    assert {"mfu", "memory", "data_wait", "peak_flops"} <= set(TIMES)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GB200", 2500e12),
        ("AMD Instinct MI300X", 1307.4e12),
        ("AMD Instinct MI325X", 1307.4e12),
        ("AMD Instinct MI250X", 191.5e12),
        ("NVIDIA H20", None),
        ("NVIDIA A10G", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_peaks_are_known_by_the_name_of_the_device(name, peak):
    assert known_peak(name) == peak


def test_a_peak_for_bf16_says_nothing_of_fp32():
    assert peak_flops(TrainSection(precision="fp32"), torch.device("cuda")) is None
    assert peak_flops(TrainSection(precision="fp32", peak_flops=5e12), torch.device("cuda")) == 5e12


def test_held_out_loss_is_measured_while_the_stage_trains(alone, folder):
    measured = read(alone.job.folder / EVALUATIONS)
    assert [line["step"] for line in measured] == [2, 4, 6]
    about = AttentionSection(), 7, 3, torch.device("cpu"), SIZES
    last = held_out_loss(alone.model, open_sequence(folder), *about)
    assert measured[-1]["loss"] == pytest.approx(last["loss"], rel=1e-6)
    assert measured[-1]["sources"]["count"]["tokens"] == last["sources"]["count"]["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "shard"), [(2, "full"), (3, "none")])
def test_several_processes_tell_what_one_does(tmp_path, folder, alone, processes, shard):
    run = tmp_path / "run"
    run.mkdir()
    section = {**SECTION, "shard": shard}
    launch(processes, [{"run": str(run), "sequence": str(folder), "steps": STEPS, "section": section}], tmp_path)
    for name, keys in ((FILE, ("bits_per_byte", "weight_norm", "update_norm")), (EVALUATIONS, ("loss", "tokens"))):
        ours, theirs = read(latest(run, "one") / name), read(alone.job.folder / name)
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            assert {key: a[key] for key in keys if key in a} == {
                key: pytest.approx(b[key], rel=1e-4) for key in keys if key in b
            }
            for source, told in b["sources"].items():
                assert a["sources"][source] == {key: pytest.approx(value, rel=1e-5) for key, value in told.items()}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def resumed(run: Path, folder: Path, step: int, **changes) -> Trainer:
    """Train; lose all after a step, as in a kill; train again."""
    first = trained(run, folder, **changes)
    for lost in range(step + 1, STEPS + 1):
        shutil.rmtree(first.job.folder / f"step-{lost:08d}", ignore_errors=True)
    return trained(run, folder, **changes)


def test_tensorboard_reads_the_same_numbers_also_after_a_kill(tmp_path, folder):
    again = resumed(tmp_path, folder, 4, log=["tensorboard"])
    found = scalars(tmp_path / "tensorboard" / "one" / again.job.trajectory.identity)
    lines, measured = read(again.job.folder / FILE), read(again.job.folder / EVALUATIONS)
    told = [(line["step"], line["loss"]) for line in lines]
    assert [step for step, _ in told] == [1, 2, 3, 4, 5, 6]
    assert np.allclose(found["train/loss"], told)
    assert np.allclose(
        found["train/sources/pairs/loss"], [(line["step"], line["sources"]["pairs"]["loss"]) for line in lines]
    )
    assert np.allclose(found["evaluation/loss"], [(line["step"], line["loss"]) for line in measured])
    assert [step for step, _ in found["machine/tokens_per_second"]] == [1, 2, 3, 4, 5, 6]
    assert "train/learning_rate" in found


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a run's file, which is a LevelDB log after 7 bytes: blocks of 32 KiB, pieces with 7 bytes each of
    checksum, length and type (1 whole, 2 first, 3 middle, 4 last)."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 < len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_wandb_reads_the_same_numbers_from_its_offline_file(tmp_path, folder, monkeypatch):
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")

    monkeypatch.setenv("WANDB_MODE", "online")  # what the recipe says counts
    one = trained(tmp_path, folder, log=["wandb"])
    identity = one.job.trajectory.identity
    [path] = (tmp_path / "wandb").glob(f"offline-run-*-{identity}/*.wandb")
    history = [
        {item.key or "/".join(item.nested_key): float(item.value_json) for item in record.history.item}
        for record in wandb_records(path)
        if record.WhichOneof("record_type") == "history"
    ]
    for line in read(one.job.folder / FILE):
        [said] = [items for items in history if items["_step"] == line["step"]]
        assert said["train/loss"] == pytest.approx(line["loss"])
        assert said["train/sources/count/bits_per_byte"] == line["sources"]["count"]["bits_per_byte"]
    assert [items["evaluation/loss"] for items in history if "evaluation/loss" in items] == [
        line["loss"] for line in read(one.job.folder / EVALUATIONS)
    ]
    [run] = [one.run for one in wandb_records(path) if one.WhichOneof("record_type") == "run"]
    assert run.host == "headrace", "the machine's name is its own affair"
