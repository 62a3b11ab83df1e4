"""Texts of any length against bigcode-dataset's way in plain Python."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_contamination_kernels import buffers

from headrace.select.contamination import verbatim
from headrace.select.contamination.verbatim import find_verbatim, verbatim_table

letters = st.sampled_from(["a", "b", "A", " ", "\n", "\t", "é", "İ", "i", "\u0307", "Σ", "σ", "ς", "ß", "\u2028", "漢"])
needles = st.text(letters, min_size=0, max_size=80)


def in_python(documents: list[str], texts: list[str]) -> set[tuple[int, int]]:
    """find_substrings.py: the content in lower case, and whether each text in lower case is in it."""
    return {
        (d, p)
        for d, document in enumerate(documents)
        for p, text in enumerate(texts)
        if text and text.lower() in document.lower()
    }


@given(st.lists(needles, max_size=6), st.data())
def test_found_is_what_python_finds(texts: list[str], data: st.DataObject) -> None:
    part = st.one_of(needles, st.sampled_from(texts or [""]), st.sampled_from([text.upper() for text in texts] or [""]))
    filler = st.one_of(st.just(""), st.integers(-90, 90).map(lambda n: "q" * (verbatim._PIECE + n)))
    documents = data.draw(st.lists(st.tuples(filler, st.lists(part, max_size=4)), max_size=3))
    documents = [before + "".join(parts) for before, parts in documents]
    found = find_verbatim(*buffers(documents), verbatim_table(texts))
    got = list(zip(found.document.tolist(), found.pattern.tolist(), strict=True))
    assert len(set(got)) == len(got)
    assert set(got) == in_python(documents, texts)


@given(st.lists(st.text(st.sampled_from("abAB \né"), min_size=1, max_size=40), min_size=1, max_size=3), st.data())
def test_the_place_is_the_first(texts: list[str], data: st.DataObject) -> None:
    part = st.one_of(st.sampled_from(texts), st.text(st.sampled_from("abé "), max_size=9))
    documents = ["".join(parts) for parts in data.draw(st.lists(st.lists(part, max_size=5), max_size=3))]
    found = find_verbatim(*buffers(documents), verbatim_table(texts))
    for d, p, start, stop in zip(*(column.tolist() for column in found), strict=True):
        document = documents[d]
        at = document.lower().index(texts[p].lower())
        assert document[at : at + len(texts[p])].encode() == document.encode()[start:stop]
        assert len(document[:at].encode()) == start


def test_many_matches_and_a_long_text() -> None:
    long = "".join(chr(97 + i % 26) for i in range(3 * verbatim._PIECE))
    texts = [long, long[7:], *(f"number {i};" for i in range(400))]
    documents = ["x" * 20_000 + long, "".join(texts[2:]), long[: verbatim._PIECE]]
    found = find_verbatim(*buffers(documents), verbatim_table(texts))
    assert set(zip(found.document.tolist(), found.pattern.tolist(), strict=True)) == in_python(documents, texts)


def test_a_hash_alone_is_not_believed() -> None:
    table = verbatim_table(["a" * 40])
    forged = table._replace(points=np.full_like(table.points, ord("b")))
    assert len(find_verbatim(*buffers(["A" * 60]), table).pattern) == 1
    assert len(find_verbatim(*buffers(["A" * 60]), forged).pattern) == 0
    assert len(find_verbatim(*buffers(["a", ""]), verbatim_table([])).pattern) == 0
