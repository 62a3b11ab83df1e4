"""How many shards a sequence has, how large they are, and the memory that the phase which writes them asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_build import build, of_stage, stage

from headrace.sequence import layout, shuffle
from headrace.sequence.layout import MOST_PARTITIONS, MOST_SHARDS, SHARD_BYTES, Shards

ROW = 2049 * 2


@pytest.mark.parametrize(
    ("rows", "partitions", "each"),
    [
        (0, 1, 1),
        (SHARD_BYTES // ROW, 1, 1),
        (SHARD_BYTES // ROW + 1, 2, 1),
        (1024 * (SHARD_BYTES // ROW), 1024, 1),
        (2_000_000 * 16, MOST_PARTITIONS, 2),
        (10**9, MOST_PARTITIONS, MOST_SHARDS // MOST_PARTITIONS),
        (10**11, MOST_PARTITIONS, MOST_SHARDS // MOST_PARTITIONS),
    ],
)
def test_shards_of_64_mb_up_to_a_number_and_larger_ones_beyond(rows: int, partitions: int, each: int) -> None:
    shards = Shards.of(rows, ROW)
    assert (shards.partitions, shards.each, shards.count) == (partitions, each, partitions * each)
    assert shards.count <= MOST_SHARDS
    assert shards.count == MOST_SHARDS or rows * ROW <= shards.count * SHARD_BYTES


def test_keys_fall_into_every_shard_evenly_and_in_order() -> None:
    shards = Shards.of(10**9, ROW)
    found = shards.shard(np.linspace(0, 2**64 - 2**12, 1 << 18).astype(np.uint64))
    assert (np.diff(found) >= 0).all()
    counts = np.bincount(found, minlength=shards.count)
    assert len(counts) == MOST_SHARDS
    assert counts.min() >= 15
    assert counts.max() <= 17


def test_a_task_asks_for_the_memory_of_its_largest_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SHARD_BYTES", 4000)
    monkeypatch.setattr(layout, "MOST_PARTITIONS", 3)
    asked: dict[int, list[dict[str, Any]]] = {}
    plan = shuffle.plan
    expected = None
    for most in (1000, 6, 3):
        monkeypatch.setattr(layout, "MOST_SHARDS", most)

        def remembered(step: Any, ctx: Any, most: int = most) -> list[dict[str, Any]]:
            asked[most] = plan(step, ctx)
            return asked[most]

        monkeypatch.setattr(shuffle, "plan", remembered)
        made = build(tmp_path / str(most), of_stage(stage()), 1 << 16)
        each = -(-len(made.artifact.shards) // 3)
        assert len(made.artifact.shards) <= most
        for spec in asked[most]:
            assert shuffle.memory(spec) >= 4 * spec["bytes"] / each
            assert shuffle.memory(spec) < 4 * (spec["bytes"] / each + 1)
        expected = made.rows(0, len(made)) if expected is None else expected
        assert (made.rows(0, len(made)) == expected).all()
    assert max(map(shuffle.memory, asked[3])) > 1.5 * max(map(shuffle.memory, asked[6]))
