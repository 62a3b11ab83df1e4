"""The kernel that moves tokens, against plain slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.sequence.place import collect


@given(st.data())
def test_collect_equals_slices_of_documents_and_what_follows_them(data: st.DataObject) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6))
    follow = data.draw(st.lists(st.lists(st.integers(90, 99), max_size=4), min_size=1, max_size=3))
    tokens = np.array([t for d in documents for t in d], dtype=data.draw(st.sampled_from([np.uint16, np.uint32])))
    tails = np.array([t for f in follow for t in f], dtype=tokens.dtype)
    ends = np.cumsum([len(d) for d in documents])
    full = [(d, f) for d in range(len(documents)) for f in range(len(follow)) if documents[d] or follow[f]]
    segments = data.draw(st.lists(st.sampled_from(full), max_size=8)) if full else []
    whole = [[*documents[d], *follow[f]] for d, f in segments]
    offsets = [data.draw(st.integers(0, len(w) - 1)) for w in whole]
    counts = [data.draw(st.integers(1, len(w) - o)) for w, o in zip(whole, offsets, strict=True)]
    lengths = np.array([len(documents[d]) for d, _ in segments], dtype=np.int64)
    starts = np.array([ends[d] - len(documents[d]) for d, _ in segments], dtype=np.int64)
    tail = np.array([sum(map(len, follow[:f])) for _, f in segments], dtype=np.int64)
    at = np.cumsum(counts, dtype=np.int64) - np.array(counts, dtype=np.int64)
    out = np.zeros(sum(counts), dtype=tokens.dtype)
    place = np.array(offsets, np.int32), np.array(counts, np.int32)
    collect(tokens, starts, lengths, *place, tails, tail, out, at)
    expected = [w[o : o + n] for w, o, n in zip(whole, offsets, counts, strict=True)]
    assert out.tolist() == [t for part in expected for t in part]
