"""The best of each group and what is removed for it, against a plain implementation, whatever the chunks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.verdicts import representatives
from headrace.select.verdicts.groups import best_of_groups, find_groups, index_groups
from headrace.select.verdicts.representatives import MEMBER, find_copies, find_representatives


def members(told: list[tuple[int, int, int, int, int, bool]]) -> np.ndarray:
    records = np.zeros(len(told), dtype=MEMBER)
    for row, (group, priority, size, key, content, barred) in enumerate(told):
        records[row]["group"], records[row]["priority"], records[row]["bytes"] = group, priority, size
        records[row]["key"], records[row]["row"], records[row]["low"] = key, row, content
        records[row]["barred"], records[row]["length"] = barred, row % 3
    return records


def preference(record: np.void) -> tuple[int, ...]:
    return int(record["priority"]), -int(record["bytes"]), int(record["key"]), int(record["row"])


def reference(records: np.ndarray) -> dict[int, np.void]:
    """Group -> its preferred member."""
    best: dict[int, np.void] = {}
    for record in records[records["barred"] == 0]:
        group = int(record["group"])
        if group not in best or preference(record) < preference(best[group]):
            best[group] = record
    return best


TOLD = st.lists(
    st.tuples(
        st.integers(0, 9).map(lambda x: x * 0x9E3779B97F4A7C15 % 2**64),
        st.integers(0, 1),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=60,
)


@given(TOLD)
def test_best(told: list[tuple[int, int, int, int, int, bool]]) -> None:
    records = members(told)
    found = records["row"][best_of_groups(records)].tolist()
    want = reference(records)
    assert sorted(found) == sorted(int(record["row"]) for record in want.values())


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_finding(groups: list[int], others: list[int]) -> None:
    have = np.array(groups, dtype=np.uint64)
    wanted = np.array(groups[::-1] + others, dtype=np.uint64)
    want = [groups.index(x) if x in groups else -1 for x in wanted.tolist()]
    assert find_groups(wanted, have, index_groups(have)).tolist() == want


@given(TOLD, st.integers(1, 20), st.sampled_from([0, 300, 1 << 20]))
def test_election_does_not_depend_on_chunks(told: list, size: int, least: int) -> None:
    records = members(told)

    def chunks():
        for start in range(0, len(records), size):
            some = records[start : start + size]
            yield some, np.repeat(some["row"].astype(np.uint8), some["length"])

    before, representatives.GATHERED_BYTES = representatives.GATHERED_BYTES, least
    try:
        best = find_representatives(chunks())
        copies = list(find_copies(chunks(), best))
    finally:
        representatives.GATHERED_BYTES = before
    want = reference(records)
    assert best.records["group"].tolist() == sorted(want)
    assert best.records["row"].tolist() == [int(want[group]["row"]) for group in sorted(want)]
    assert best.files.tolist() == [int(r["row"]) % 256 for r in best.records for _ in range(int(r["length"]))]
    got = {}
    for some in copies:
        for row, at, exact in zip(some.row.tolist(), some.representative.tolist(), some.exact.tolist(), strict=True):
            got[row] = (int(best.records["row"][at]), exact)
    right = {}
    for record in records[records["barred"] == 0]:
        best = want[int(record["group"])]
        if best["row"] != record["row"]:
            right[int(record["row"])] = (int(best["row"]), bool(best["low"] == record["low"]))
    assert got == right
