from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.flow import exchange
from headrace.flow.exchange import Spill, partition_bytes, partition_counts, read_partition, sorted_partition
from headrace.flow.plans import write_plan
from headrace.flow.step import Step
from headrace.flow.task import TaskContext
from quick import examples

PLAIN = np.dtype([("a", "<u8"), ("b", "<i4")])
LOADED = np.dtype([("a", "<u8"), ("length", "<i8")])


@dataclass(frozen=True)
class Nothing(Step):
    kind = "nothing"
    VERSION = 1

    def params(self):
        return {}

    def inputs(self):
        return {}

    def phases(self):
        return []

    def finish(self, ctx):
        return {"counts": {}}


def context(tmp_path, phase, task, memory):
    return TaskContext(tmp_path, Nothing(), phase, task, memory)


def write(tmp_path, tasks, partitions, memory, payloads=None):
    """Spill each task's records in small pieces."""
    write_plan(context(tmp_path, "map", -1, memory).plan("map"), [{}] * len(tasks))
    for task, records in enumerate(tasks):
        ctx = context(tmp_path, "map", task, memory)
        with Spill(ctx, "x", records.dtype, partitions, payload=payloads is not None) as spill:
            at = 0
            for i in range(0, len(records), 7):
                piece = records[i : i + 7]
                load = None
                if payloads is not None:
                    size = int(piece["length"].sum())
                    load = payloads[task][at : at + size]
                    at += size
                spill.add(piece["a"] % partitions, piece, load)


@settings(max_examples=examples(30))
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 40), st.integers(-5, 5)), max_size=400), min_size=1, max_size=3),
    st.integers(1, 5),
    st.sampled_from([1 << 10, 1 << 20]),
)
def test_sorted_partitions_hold_all_records_in_stable_order(tmp_path, tasks, partitions, memory):
    arrays = [np.array(t, dtype=PLAIN) for t in tasks]
    write(tmp_path, arrays, partitions, memory)
    everything = np.concatenate(arrays)
    reduce = context(tmp_path, "reduce", 0, memory)
    counts = partition_counts(reduce, "map", "x")
    for p in range(partitions):
        want = everything[everything["a"] % partitions == p]
        assert len(want) == counts[p]
        chunks = list(sorted_partition(reduce, "map", "x", p, PLAIN, ("a",)))
        got = np.concatenate(chunks) if chunks else np.empty(0, PLAIN)
        assert (got == want[np.argsort(want["a"], kind="stable")]).all()


def test_beyond_the_budget_it_sorts_on_disk_in_bounded_chunks(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [np.empty(20_000, dtype=PLAIN) for _ in range(3)]
    for array in arrays:
        array["a"], array["b"] = rng.integers(0, 1 << 40, len(array)), rng.integers(-99, 99, len(array))
    write(tmp_path, arrays, 1, 1 << 20)
    memory = 1 << 17
    reduce = context(tmp_path, "reduce", 0, memory)
    chunks = list(sorted_partition(reduce, "map", "x", 0, PLAIN, ("a", "b")))
    assert len(chunks) > 20
    assert max(chunk.nbytes for chunk in chunks) < memory / 2
    everything = np.concatenate(arrays)
    assert (np.concatenate(chunks) == everything[np.lexsort([everything["b"], everything["a"]])]).all()
    assert not list((tmp_path / "artifacts").rglob("*.run"))


@pytest.mark.parametrize("memory", [1 << 10, 1 << 24])
def test_payloads_stay_with_their_records(tmp_path, memory):
    rng = np.random.default_rng(1)
    tasks, payloads = [], []
    for _ in range(2):
        records = np.empty(3000, dtype=LOADED)
        records["a"], records["length"] = rng.integers(0, 1 << 30, 3000), rng.integers(0, 90, 3000)
        tasks.append(records)
        payloads.append(np.repeat(records["a"] % 251, records["length"]).astype(np.uint8))
    write(tmp_path, tasks, 3, memory, payloads)
    reduce = context(tmp_path, "reduce", 0, memory)
    seen = 0
    for p in range(3):
        for records, payload in read_partition(reduce, "map", "x", p, LOADED, payload=True):
            assert (records["a"] % 3 == p).all()
            assert (payload == np.repeat(records["a"] % 251, records["length"]).astype(np.uint8)).all()
            seen += len(records)
    assert seen == 6000
    assert partition_bytes(reduce, "map", "x").sum() == sum(len(p) for p in payloads)


def test_a_task_without_records_leaves_an_empty_spill(tmp_path):
    write(tmp_path, [np.empty(0, PLAIN), np.empty(0, PLAIN)], 2, 1 << 20)
    reduce = context(tmp_path, "reduce", 0, 1 << 20)
    assert partition_counts(reduce, "map", "x").tolist() == [0, 0]
    assert list(sorted_partition(reduce, "map", "x", 1, PLAIN, ("a",))) == []


@settings(max_examples=examples(30))
@given(data=st.data())
def test_what_is_in_order_is_written_as_what_is_not(data, tmp_path_factory):
    """The same bytes, whether a run is copied into order or written from where it lies."""
    partitions = data.draw(st.integers(1, 5))
    pieces = data.draw(
        st.lists(st.lists(st.tuples(st.integers(0, partitions - 1), st.binary(max_size=9)), min_size=1), max_size=4)
    )
    if data.draw(st.booleans()):
        pieces = [sorted(piece, key=lambda record: record[0]) for piece in pieces]
    found = []
    for slice_bytes in (0, 1 << 40):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(exchange, "SLICE_BYTES", slice_bytes)
            folder = tmp_path_factory.mktemp("exchange")
            ctx = context(folder, "map", 0, 1 << 26)
            with Spill(ctx, "x", LOADED, partitions, payload=True) as spill:
                for piece in pieces:
                    records = np.array([(p, len(load)) for p, load in piece], dtype=LOADED)
                    load = np.frombuffer(b"".join(load for _, load in piece), dtype=np.uint8)
                    spill.add(records["a"].astype(np.int64), records, load)
            found.append([path.read_bytes() for path in sorted((ctx.folder / "scratch" / "map").glob("x-*"))])
    assert found[0] == found[1]
    assert len(found[0]) == 2
