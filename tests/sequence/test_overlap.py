"""Stretches of a line that lie in others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.sequence.overlap import covered

stretches = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=8)


@given(stretches, stretches)
def test_what_is_covered_is_what_the_positions_share(ours, others):
    taken = {position for first, length in others for position in range(first, first + length)}
    expected = [sum(p in taken for p in range(first, first + length)) for first, length in ours]
    columns = [np.array([pair[i] for pair in pairs], dtype=np.int64) for pairs in (ours, others) for i in (0, 1)]
    assert covered(*columns).tolist() == expected
