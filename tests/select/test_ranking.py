"""Ranks and cuts over shards, compared with sorting everything in one list."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.select.quality.ranking import Budget, best_first, cuts, open_tables, ranks, scores_of, write

# Few different scores, so that many are equal; and scores that are hard to order by their bits.
SCORES = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, -1e-45, math.inf, -math.inf, math.nan]),
    st.floats(width=32),
)
DOCUMENT = st.tuples(SCORES, st.sampled_from([None, "c", "python"]), st.integers(0, 50))
SHARDS = st.lists(st.lists(DOCUMENT, max_size=12), min_size=1, max_size=5)


def single(score: float) -> float:
    return struct.unpack("f", struct.pack("f", score))[0]


def order(score: float) -> tuple[bool, float]:
    """Best first, those without a score last."""
    return (True, 0.0) if math.isnan(score) else (False, -single(score))


def tables(folder: Path, shards):
    paths, written, row = [], [], 0
    for k, documents in enumerate(shards):
        paths.append(folder / f"{k}.npy")
        scores = np.array([d[0] for d in documents], dtype=np.float32)
        rows = np.arange(row, row + len(documents), dtype=np.uint64)
        weights = np.array([d[2] for d in documents], dtype=np.int64)
        groups = pa.array([d[1] for d in documents], pa.string())
        with paths[-1].open("wb") as f:
            written.append(write(f, best_first(scores), rows, weights, groups))
        row += len(documents)
    return open_tables(paths, written)


def plain(shards, budget: Budget) -> dict[str | None, tuple[list[int], set[int]]]:
    """Group -> its rows from the best to the worst, and those that are taken."""
    everything = [(*d, row) for row, d in enumerate(d for shard in shards for d in shard)]
    whole = sum(d[2] for d in everything)
    found = {}
    for name in {d[1] for d in everything}:
        ranked = sorted((d for d in everything if d[1] == name), key=lambda d: (order(d[0]), d[3]))
        total = sum(d[2] for d in ranked)
        taken, reached = set(), 0
        for score, _, weight, row in ranked:
            if budget.above is not None:
                wanted = not math.isnan(score) and single(score) >= single(budget.above)
            else:
                part = budget.share * total if budget.share is not None else budget.amount * total / max(1, whole)
                wanted = reached < min(total, max(1, math.ceil(round(part, 3))))
            if not total or wanted:
                taken.add(row)
            reached += weight
        found[name] = ([d[3] for d in ranked], taken)
    return found


@given(
    shards=SHARDS,
    budget=st.one_of(
        st.floats(0.001, 1).map(lambda share: Budget(share=share)),
        st.integers(1, 3000).map(lambda amount: Budget(amount=amount)),
        st.floats(-2, 2, width=32).map(lambda above: Budget(above=above)),
    ),
)
def test_cuts_and_ranks_are_those_of_one_sorted_list(tmp_path_factory, shards, budget):
    found = tables(tmp_path_factory.mktemp("ranks"), shards)
    expected = plain(shards, budget)
    assert set(found) == set(expected)
    ended = cuts(found, budget)
    for name, (ranked, taken) in expected.items():
        cut = ended[name]
        kept, places = set(), {}
        for shard, table in enumerate(found[name]):
            kept |= set(table[1][cut.takes(table[0], table[1])].tolist())
            places |= dict(zip(table[1].tolist(), ranks(found[name], shard).tolist(), strict=True))
        assert kept == taken
        assert (cut.documents, cut.taken) == (len(ranked), len(taken))
        assert places == {row: k for k, row in enumerate(ranked, 1)}


@given(st.lists(SCORES, max_size=20))
def test_keys_order_as_scores_do_and_lead_back_to_them(scores):
    keys = best_first(np.array(scores, dtype=np.float32))
    assert [scores[i] for i in np.argsort(keys, kind="stable")] == pytest.approx(
        sorted(scores, key=order), nan_ok=True, rel=1e-6, abs=1e-44
    )
    back = scores_of(keys)
    for score, told in zip(scores, back, strict=True):
        if not math.isfinite(score):
            continue
        assert single(told) == single(score)


def test_a_tenth_of_a_thousand_is_a_hundred(tmp_path):
    documents = [(float(k), None, 10) for k in range(100)]
    assert cuts(tables(tmp_path, [documents]), Budget(share=0.1))[None].taken == 10
    assert cuts(tables(tmp_path, [documents]), Budget(amount=101))[None].taken == 11
