"""What a plan says of a cluster: tasks as the steps have them, more nodes never slower, an object store never free."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from headrace.documents import sink
from headrace.planning.cluster import (
    BAND_BYTES,
    BYTES_A_DOCUMENT,
    MOST_PARTITIONS,
    MOST_ROW_PARTITIONS,
    PARTITION_BYTES,
    ROW_SHARD_BYTES,
    SHARD_BYTES,
    ClusterPlan,
    rounds_of,
)
from headrace.planning.forecast import plan
from headrace.planning.rates import work
from headrace.recipe.load import load_recipe
from headrace.select.duplicates import step as duplicates
from headrace.sequence import layout

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def slimpajama():
    return plan(load_recipe(ROOT / "recipes" / "slimpajama-tokens.yaml"))


def test_sizes_are_those_of_the_steps():
    assert SHARD_BYTES == sink.SHARD_BYTES
    assert (PARTITION_BYTES, MOST_PARTITIONS) == (duplicates.PARTITION_BYTES, duplicates.MOST_PARTITIONS)
    assert (ROW_SHARD_BYTES, MOST_ROW_PARTITIONS) == (layout.SHARD_BYTES, layout.MOST_PARTITIONS)
    assert duplicates.narrow(duplicates.BAND, 1 << 20).itemsize == BAND_BYTES


@pytest.mark.parametrize("documents", [1, 10**5, 10**7, 10**9])
def test_an_exchange_has_as_many_partitions_as_the_step(documents):
    _, sort = rounds_of([work("duplicates", "candidates", "candidates", documents)])
    assert sort.tasks == duplicates.partitions(9 * documents, duplicates.narrow(duplicates.BAND, documents))
    assert sort.reads == 2 * sort.tasks * math.ceil(documents * BYTES_A_DOCUMENT / SHARD_BYTES)


def test_core_hours_are_those_of_the_plan_and_a_slow_storage_adds_to_them(slimpajama):
    on = {storage: ClusterPlan.of(slimpajama, 8, 64, storage) for storage in ("shared", "s3")}
    assert on["shared"].core_hours == pytest.approx(sum(one.core_seconds for one in slimpajama.work) / 3600)
    assert on["shared"].waiting_hours == 0
    assert on["s3"].core_hours == pytest.approx(on["shared"].core_hours + on["s3"].waiting_hours)
    assert on["s3"].waiting_hours > 1
    assert on["s3"].seconds > on["shared"].seconds


def test_more_nodes_are_never_slower_and_never_faster_than_the_work_alone(slimpajama):
    by = [ClusterPlan.of(slimpajama, nodes, 64, "shared") for nodes in (1, 2, 8, 100, 10_000)]
    seconds = [one.seconds for one in by]
    assert seconds == sorted(seconds, reverse=True)
    alone = sum(one.core_seconds for one in by[0].rounds if one.tasks == 1)
    assert seconds[-1] > alone
    disks = [one.disk for one in by]
    assert disks == sorted(disks, reverse=True)
    assert disks[-1] > 64 * SHARD_BYTES


def test_text_and_json_tell_the_same(slimpajama):
    told = ClusterPlan.of(slimpajama, 8, 64, "s3")
    value = told.to_json()
    assert value["reads"] == sum(one["reads"] for one in value["rounds"])
    assert value["seconds"] == pytest.approx(sum(one["seconds"] for one in value["rounds"]))
    assert "duplicates: sort" in str(told)
    assert "waiting for s3" in str(told)
    assert "waiting" not in str(ClusterPlan.of(slimpajama, 8, 64, "shared"))
