"""The sidecar of groups, and the golden digests of what is built from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from grouped_build import SOURCES, SmallRepositories, of_stage
from small_build import build, open_input, stage

from headrace.flow.artifact import Artifact
from headrace.flow.events import EventLog
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.runner import make
from headrace.flow.step import topological
from headrace.sequence.grouping import step as groups_step
from headrace.sequence.grouping.step import Groups, groups_of

DEPENDENCIES = {"by": "repo", "within": "language", "order": "dependencies"}


def made(run: Path, step: Groups, memory: int = 64 << 20) -> Artifact:
    run.mkdir(parents=True, exist_ok=True)
    log = EventLog(run)
    make(topological([step]), run, InlineExecutor(run, [step], memory), log, memory)
    log.close()
    return Artifact.open(run / "artifacts" / step.name)


def read(groups: Artifact) -> list[bytes]:
    return [groups.shard_path(k).read_bytes() for k in range(len(groups.shards))]


def test_every_document_has_a_row(tmp_path: Path) -> None:
    documents = SmallRepositories(SOURCES, per_shard=40)
    groups = made(tmp_path, Groups(documents, {"a": DEPENDENCIES}))
    rows = documents.rows()
    assert groups.rows == len(rows)
    found = [groups_of(pq.read_table(groups.shard_path(k))) for k in range(len(groups.shards))]
    grouped = np.concatenate([one.grouped for one in found]).tolist()
    assert grouped == [row["source"] == "a" and bool(row.get("repo")) for row in rows]
    keys = np.concatenate([one.groups for one in found])
    ranks = np.concatenate([one.ranks for one in found])
    held: dict[tuple[int, ...], list[int]] = {}
    names: dict[tuple[int, ...], set[tuple[str, str | None]]] = {}
    for i, row in enumerate(rows):
        if grouped[i]:
            held.setdefault(tuple(keys[i].tolist()), []).append(int(ranks[i]))
            names.setdefault(tuple(keys[i].tolist()), set()).add((row["repo"], row["language"]))
    assert all(sorted(places) == list(range(len(places))) for places in held.values())
    assert all(len(one) == 1 for one in names.values())
    assert len({next(iter(one)) for one in names.values()}) == len(names) > 5
    assert groups.manifest.counts == {"a": {"grouped": sum(grouped), "alone": 150 - sum(grouped)}}


def test_partitions_and_memory_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Groups(SmallRepositories(SOURCES, per_shard=40), {"a": DEPENDENCIES, "b": {**DEPENDENCIES, "order": "path"}})
    whole = read(made(tmp_path / "whole", step))
    assert read(made(tmp_path / "little", step, 1 << 14)) == whole
    monkeypatch.setattr(groups_step, "_PARTITION_TEXT", 1000)
    assert read(made(tmp_path / "parts", step)) == whole


def test_a_group_too_large_keeps_the_order_of_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups_step, "MOST_FILES", 10)
    groups = made(tmp_path, Groups(SmallRepositories(SOURCES, per_shard=40), {"a": {**DEPENDENCIES, "within": None}}))
    found = [groups_of(pq.read_table(groups.shard_path(k))) for k in range(len(groups.shards))]
    keys, ranks = np.concatenate([one.groups for one in found]), np.concatenate([one.ranks for one in found])
    grouped = np.concatenate([one.grouped for one in found])
    _, which, counts = np.unique(keys, axis=0, return_inverse=True, return_counts=True)
    large = grouped & (counts[which.reshape(-1)] > 10)
    assert large.any()
    assert not ranks[large].any()
    assert groups.manifest.extra["as_read"] == large.sum()
    assert groups.manifest.extra["groups_as_read"] == len({*which.reshape(-1)[large].tolist()})


def test_bytes_are_those_of_this_version(tmp_path: Path) -> None:
    """The golden digests: if these change, raise Groups.VERSION or Sequence.VERSION."""
    found = {}
    for name, keys in {
        "shuffled": {"format": "starcoder2", "metadata": 0.5},
        "path": {"order": "path", "limit": 400},
        "dependencies": {"order": "dependencies", "within": None},
    }.items():
        step = of_stage(stage(sources={"a": {"fim": {"rate": 0.5}}, "b": {}}), {"a": keys})
        sequence = build(tmp_path, step)
        found[name] = [one["digest"] for one in sequence.artifact.shards]
        found[f"groups, {name}"] = [one["digest"] for one in open_input(sequence, step, "groups").shards]
    assert {name: digests[0] for name, digests in found.items()} == GOLDEN


GOLDEN = {
    "dependencies": "259e253979c8543ba4f23627561e5aa2",
    "groups, dependencies": "9fbadbe453ab1de60c2654398a3eca0a",
    "groups, path": "7317aa14fff87a209eadeb8958b8a979",
    "groups, shuffled": "68f44962b837784c543030406cad1920",
    "path": "590e9211b29c58033a41245ea6224bb0",
    "shuffled": "4ccac0a5f09680d79058ec324d011ef2",
}
