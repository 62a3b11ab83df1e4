"""The kernel that moves tokens, against plain slices."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.sequence.place import collect


@given(st.data())
def test_collect_equals_slices_of_ended_documents(data: st.DataObject) -> None:
    documents = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=6))
    tokens = np.array([t for d in documents for t in d], dtype=data.draw(st.sampled_from([np.uint16, np.uint32])))
    ends = np.cumsum([len(d) for d in documents])
    segments = data.draw(st.lists(st.integers(0, len(documents) - 1), max_size=8))
    offsets = [data.draw(st.integers(0, len(documents[d]))) for d in segments]
    counts = [data.draw(st.integers(1, len(documents[d]) + 1 - o)) for d, o in zip(segments, offsets, strict=True)]
    lengths = np.array([len(documents[d]) for d in segments], dtype=np.int64)
    starts = np.array([ends[d] - len(documents[d]) for d in segments], dtype=np.int64)
    at = np.cumsum(counts, dtype=np.int64) - np.array(counts, dtype=np.int64)
    out = np.zeros(sum(counts), dtype=tokens.dtype)
    collect(tokens, starts, lengths, np.array(offsets, np.int32), np.array(counts, np.int32), 99, out, at)
    expected = [[*documents[d], 99][o : o + n] for d, o, n in zip(segments, offsets, counts, strict=True)]
    assert out.tolist() == [t for part in expected for t in part]
