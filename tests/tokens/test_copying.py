from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from headrace.tokens.copying import copy_pieces

TEXT = st.text(st.sampled_from("ab \u2581\u2580\u2582é語😀"), max_size=40)
PIECES = st.lists(st.tuples(TEXT, st.booleans()), max_size=5)


@given(PIECES, st.booleans(), st.integers(0, 9))
def test_pieces_are_those_of_the_plain_expression(pieces, meta_space, before) -> None:
    texts = [text.encode() for text, _ in pieces]
    want = [
        (b" " if lead and text else b"") + (text.replace("\u2581".encode(), b" ") if meta_space else text)
        for text, (_, lead) in zip(texts, pieces, strict=True)
    ]
    data = np.frombuffer(b"x" * before + b"".join(texts), dtype=np.uint8)
    bounds = before + np.cumsum([0, *map(len, texts)])
    out, ends = np.full(len(data) + len(texts) + 3, 7, np.uint8), np.empty(len(texts) + 1, np.int64)
    copy_pieces(data, bounds, np.array([lead for _, lead in pieces], dtype=bool), meta_space, out, ends)
    assert [out[a:b].tobytes() for a, b in pairwise(ends)] == want
    assert not out[ends[-1] :].any()
